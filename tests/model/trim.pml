/*
 * What may be freed, and when (R19, R21, R23, R25, R27, R28): one volume with one block, which each write replaces; NO owners that succeed
 * one another, each of which may stop at any step for ever or go on later; NM snapshots, which are marked, published, doomed and dropped;
 * NR readers (a clone is one that never leaves); an operator. The log is one list of durable records: what becomes of its end at a
 * takeover is takeover.pml's. The place of a write in the log is the address of what it wrote.
 *
 * A set of blocks that was sent to the servers may arrive at any time, also from dead owners; so what is sent is
 * taken to have arrived: nothing of it may be needed ever after. What servers do with it (a bitmap, holes, packing) doesn't change
 * addresses, and needs no model; that copies come and go meanwhile is returning.pml's. Run: see README.
 */
#ifndef LEN
#define LEN 4                   /* records: writes and marks */
#endif
#ifndef NO
#define NO 2
#endif
#ifndef NM
#define NM 2
#endif
#ifndef NR
#define NR 1
#endif
#define BIT(i) (1 << (i))
#define HAS(m, i) (((m) >> (i)) & 1)
#define NONE 99

byte log[LEN], count;             /* 0 nothing, 1 a write, 2 + m: mark m */
byte at[NM];                    /* where mark m is */
byte fence;                     /* owner, + 1, whose log it is */
byte trimmed;                   /* blocks, by address, that some server may know to be free */

/* the catalog */
byte epoch, root = NONE, from, unsent_, list_[NM];  /* the space table is what `unsent_` and `list_` are */
bit listed_[NM];                /* the table has a list of this snapshot */
byte ss[NM];                    /* 0 nothing, 1 live, 2 doomed, 3 dropped */
bit rooted[NM];
byte holds[NM];                 /* by which it is kept */

/* an owner's transactions on their way */
byte tx_snap[NM];               /* epoch of its sender; 0: none */
bit refused[NM];                /* it can't succeed any more, and that is known: there is a snapshot of that name */
byte tx_epoch, tx_root, tx_from, tx_unsent, tx_list[NM], tx_roots, tx_drops, tx_listed;
bit tx_done;

/* ghosts */
byte reading[NM];               /* readers that are sure of theirs */
byte head = NONE;               /* of the newest owner that serves */
byte used;                      /* marks made */

/* what a snapshot has: the newest write before its mark */
inline content(m, ret) {
    ret = at[m];
    do
    :: ret > 0 && log[ret - 1] == 1 -> ret--; break
    :: ret > 0 && log[ret - 1] != 1 -> ret--
    :: ret == 0 -> ret = NONE; break
    od
}

/* Nothing that is needed may be free. */
inline check_needed() {
    assert(root == NONE || !HAS(trimmed, root));
    assert(head == NONE || !HAS(trimmed, head));
    assert((trimmed >> from) == 0);                     /* the log from there on is replayed */
    for (c : 0 .. NM - 1) {
        if
        :: ss[c] == 1 || reading[c] ->
            content(c, d);
            assert(d == NONE || !HAS(trimmed, d))
        :: else
        fi
    }
    c = 0; d = 0
}

/* I10: each block before `from` is reachable from the root, or in one list, or free. */
inline check_exact() {
    for (c : 0 .. LEN - 1) {
        if
        :: c < from && log[c] == 1 ->
            d = (root == c) + (HAS(unsent_, c) || HAS(trimmed, c));
            for (e : 0 .. NM - 1) {
                d = d + HAS(list_[e], c);
                assert(!HAS(list_[e], c) || ss[e] == 1 || ss[e] == 2)
            }
            assert(d == 1)
        :: else
        fi
    }
    c = 0; d = 0; e = 0
}

/* A snapshot's publication arrives. */
#define ARRIVES(m) \
    :: atomic { tx_snap[m] && tx_snap[m] == epoch -> ss[m] = 1; tx_snap[m] = 0; check_needed() } \
    :: atomic { tx_snap[m] && tx_snap[m] == epoch -> refused[m] = 1; tx_snap[m] = 0 } \
    :: atomic { tx_snap[m] && tx_snap[m] != epoch -> tx_snap[m] = 0 }

proctype network() {
    byte c, d, e;
end:
    do
    ARRIVES(0)
#if NM > 1
    ARRIVES(1)
#endif
#if NM > 2
    ARRIVES(2)
#endif
    /* a checkpoint's */
    :: atomic { tx_epoch && !tx_done ->
        if
        :: tx_epoch == epoch ->
            root = tx_root; from = tx_from; unsent_ = tx_unsent;
            for (c : 0 .. NM - 1) {
                list_[c] = tx_list[c]; listed_[c] = HAS(tx_listed, c);
                if :: HAS(tx_roots, c) -> rooted[c] = 1 :: else fi;
                if :: HAS(tx_drops, c) -> assert(reading[c] == 0); ss[c] = 3 :: else fi
            }
            c = 0; tx_done = 1;
            check_needed(); check_exact()
        :: else -> tx_epoch = 0
        fi }
    od
}

#if NM > 2
#define ANY(m) if :: m = 0 :: m = 1 :: m = 2 fi
#elif NM > 1
#define ANY(m) if :: m = 0 :: m = 1 fi
#else
#define ANY(m) m = 0
#endif

proctype operator() {
    byte m;
end:
    do
    :: atomic { ANY(m); ss[m] == 1 && rooted[m] -> ss[m] = 2; m = 0 }
    od
}

/* It locks the snapshot, then looks whether that is live still (one transaction does both). */
proctype reader() {
    byte m, c, d;
end:
    do
    :: atomic { ANY(m); ss[m] == 1 && rooted[m] -> holds[m]++ }
        if
        :: atomic { ss[m] == 1 -> reading[m]++; check_needed() }
            atomic { reading[m]--; holds[m]--; m = 0 }
        :: atomic { ss[m] != 1 -> holds[m]--; m = 0 }
        fi
    od
}

/* R27: the block at `p` isn't in the head any more. */
#ifdef BUG_SNAPSHOT_BLOCK
#define OLDER_THAN_MARK(p) 0
#else
#define OLDER_THAN_MARK(p) (newest != NONE && p < at[newest])
#endif
inline replaced(p) {
    if
    :: p == NONE
    :: p != NONE && OLDER_THAN_MARK(p) -> since[newest] = since[newest] | BIT(p)
    :: else -> pending = pending | BIT(p)
    fi
}

/* The list of m, which goes: to its predecessor what that has, too; the rest is free. */
#define REFILE(lists, to_free, m, pred) \
    for (c : 0 .. LEN - 1) { \
        if \
        :: HAS(lists[m], c) && pred != NONE && c < at[pred] -> lists[pred] = lists[pred] | BIT(c) \
        :: HAS(lists[m], c) && !(pred != NONE && c < at[pred]) -> to_free = to_free | BIT(c) \
        :: else \
        fi \
    } \
    c = 0; lists[m] = 0

/* the newest one older than m that is in the table, or is to be */
inline predecessor(m, ret) {
    ret = NONE;
    for (c : 0 .. NM - 1) {
        if :: HAS(known, c) && c != m && at[c] < at[m] && (ret == NONE || at[c] > at[ret]) -> ret = c :: else fi
    }
    c = 0
}

proctype owner(byte o) {
    byte newest = NONE, mine = NONE, i, m, p, c, d, e;
    byte pending, folded, unsent, since[NM], list[NM], known;     /* known: marks that have a list */
    byte marking = NONE, before = NONE;
    bit frozen;
    byte croot, cfrom, cunsent, croots, cdrops, doomed, kept;
    byte old;
#ifdef BUG_TAKER_LOOKS_FIRST
    atomic { epoch == o ->
        for (c : 0 .. NM - 1) { if :: ss[c] == 1 || ss[c] == 2 -> old = old | BIT(c) :: else fi }
        c = 0 }
#endif
    atomic { epoch == o -> epoch = o + 1 }
    atomic { fence <= o -> fence = o + 1;                             /* and what the catalog has */
        mine = root; i = from; unsent = unsent_; tx_epoch = 0; tx_done = 0;
#ifdef BUG_LOST_AT_TAKEOVER
        unsent = 0;
#endif
        for (c : 0 .. NM - 1) {
            list[c] = list_[c];
            if :: listed_[c] -> known = known | BIT(c); if :: newest == NONE || at[c] > at[newest] -> newest = c :: else fi :: else fi
        }
        c = 0 }
    /* replay */
    do
    :: atomic { i < count ->
        if
        :: log[i] == 1 -> replaced(mine); mine = i
        :: log[i] > 1 -> m = log[i] - 2;
#ifdef BUG_TAKER_LOOKS_FIRST
            if :: HAS(old, m) -> newest = m; known = known | BIT(m) :: else fi;
#else
            if :: ss[m] == 1 || ss[m] == 2 -> newest = m; known = known | BIT(m) :: else fi;
#endif
            m = 0
        fi;
        i++ }
    :: atomic { i == count -> i = 0; old = 0; break }
    od;
    atomic { epoch == o + 1 -> head = mine; check_needed() }
    do
    /* a write, acknowledged */
    :: atomic { count < LEN && fence == o + 1 ->
        replaced(mine); mine = count; log[count] = 1; count++;
        head = mine; check_needed() }
    /* a mark, durable; the outcome of its publication isn't known */
    :: atomic { count < LEN && used < NM && fence == o + 1 && marking == NONE ->
        marking = used; used++; at[marking] = count; log[count] = 2 + marking; count++;
        before = newest; newest = marking; known = known | BIT(marking); tx_snap[marking] = o + 1 }
    :: atomic { marking != NONE && ss[marking] != 0 -> marking = NONE; before = NONE }
#ifdef BUG_UNKNOWN_IS_VOID
    :: atomic { marking != NONE && ss[marking] == 0 ->
#else
    :: atomic { marking != NONE && refused[marking] ->
#endif
        newest = before; known = known & ~BIT(marking);
        predecessor(marking, p);
        REFILE(since, pending, marking, p);
        marking = NONE; before = NONE; p = 0 }
    /* a checkpoint: freeze */
#ifdef BUG_CHECKPOINT_IN_MARK
    :: atomic { !frozen && fence == o + 1 && cfrom != count ->
#else
    :: atomic { !frozen && marking == NONE && fence == o + 1 && cfrom != count ->
#endif
        frozen = 1; croot = mine; cfrom = count; folded = pending; pending = 0; croots = 0; cdrops = 0; doomed = 0; kept = 0;
        for (c : 0 .. NM - 1) {
            list[c] = list[c] | since[c]; since[c] = 0;
            if :: HAS(known, c) -> croots = croots | BIT(c) :: else fi
        }
        c = 0;
#ifdef BUG_TRIM_EARLY
        trimmed = trimmed | folded; check_needed()
#endif
        }
    /* which are doomed; then, who holds them */
#ifdef BUG_HELD_FIRST
    :: atomic { frozen && !tx_epoch && !doomed ->
        for (c : 0 .. NM - 1) { if :: holds[c] -> kept = kept | BIT(c) :: else fi }
        c = 0; doomed = 128 }
    :: atomic { frozen && !tx_epoch && doomed == 128 ->
        for (c : 0 .. NM - 1) { if :: HAS(known, c) && ss[c] == 2 && rooted[c] -> doomed = doomed | BIT(c) :: else fi }
        c = 0; doomed = doomed | 64 }
#else
    :: atomic { frozen && !tx_epoch && !doomed ->
        for (c : 0 .. NM - 1) { if :: HAS(known, c) && ss[c] == 2 && rooted[c] -> doomed = doomed | BIT(c) :: else fi }
        c = 0; doomed = doomed | 128 }
    :: atomic { frozen && !tx_epoch && (doomed & 192) == 128 ->
#ifndef BUG_HOLD_UNSEEN
        for (c : 0 .. NM - 1) { if :: holds[c] -> kept = kept | BIT(c) :: else fi }
#endif
        c = 0; doomed = doomed | 64 }
#endif
    :: atomic { frozen && !tx_epoch && (doomed & 192) == 192 && m < NM && (doomed & ~kept & BIT(m)) ->
        predecessor(m, p);
        REFILE(list, folded, m, p);
        REFILE(since, pending, m, p);
        if :: newest == m -> newest = p :: else fi;
        if :: before == m -> before = p :: else fi;
        known = known & ~BIT(m); cdrops = cdrops | BIT(m); doomed = doomed & ~BIT(m); m = 0; p = 0 }
    :: atomic { m + 1 < NM && frozen && !(doomed & ~kept & BIT(m)) -> m++ }
    /* one transaction */
    :: atomic { frozen && !tx_epoch && (doomed & 192) == 192 && (doomed & ~kept & 63) == 0 ->
        tx_epoch = o + 1; tx_done = 0; tx_root = croot; tx_from = cfrom; tx_unsent = unsent | folded; tx_drops = cdrops;
        tx_roots = croots & ~cdrops; tx_listed = croots & ~cdrops; m = 0;
        for (c : 0 .. NM - 1) { tx_list[c] = list[c] }
        c = 0 }
    :: atomic { frozen && tx_epoch == o + 1 && tx_done ->
        frozen = 0; tx_epoch = 0; tx_done = 0; unsent = unsent | folded; folded = 0; doomed = 0; kept = 0; cdrops = 0; croots = 0 }
    /* only now do its frees take effect: they are sent; and forgotten when they were answered */
    :: atomic { unsent & ~trimmed -> trimmed = trimmed | unsent; check_needed() }
    :: atomic { unsent && !(unsent & ~trimmed) -> unsent = 0 }
    od
}

init {
    byte o;
    atomic {
        run network(); run operator();
        for (o : 0 .. NR - 1) { run reader() }
        for (o : 0 .. NO - 1) { run owner(o) }
    }
}
