/*
 * Snapshots of several volumes at one instant (R22): NV volumes, each with NO owners that succeed one another, NG groups, each
 * taken by a coordinator that may stop at any step for ever (a step that is never taken), and one chain of W writes, each
 * of which is begun when the one before was acknowledged, on the volumes in turn.
 *
 * What takeover.pml checks is taken from it: a record is durable when all replicas have it; a taker fences, and finds all that
 * is durable and any part of the rest. An owner that was fenced may come back: it makes nothing durable any more, but
 * acknowledges what is, answers the coordinator, and sends its transactions. A coordinator's transaction may arrive at any
 * time after it was sent, whatever became of him; so may be repeated.
 *
 * Log: log[v], in order, of writes (k + 1) and marks (W + 1 + group). Run: see README.
 */
#ifndef NV
#define NV 2
#endif
#ifndef NO
#define NO 2                    /* owners of each volume, one after another */
#endif
#ifndef NO0
#define NO0 NO                  /* those of the first, and of the second volume */
#endif
#ifndef NO1
#define NO1 NO
#endif
#ifndef NG
#define NG 1
#endif
#ifndef W
#define W 3
#endif
#define LEN ((W + NV - 1) / NV + NG)
#define NX (NV * NO)
#define X(v, o) ((v) * NO + (o))
#define AT(v, i) ((v) * LEN + (i))
#define MARK(g) (W + 1 + (g))

byte log[NV * LEN];
byte sent[NV], dur[NV];         /* records; of these, on all replicas */
byte fence[NV];                 /* owner (number + 1) for whom the log is open */

/* the catalog */
byte epoch[NV];                 /* of the owner record */
bit key[NG], begun[NG];         /* group/G is there; was made once */
bit snap[NG * NV];              /* snapshot/V/M exists: published */

/* each owner's own; X(v, o) */
byte app[NX];                   /* records applied: acknowledged, shown to reads */
byte knows[NX];                 /* once it is fenced: records of which it may still get answers */
bit serves[NX];
byte group[NX];                 /* group it is in, + 1 */
bit over[NX], held[NX];
byte outcome[NX * NG];          /* 0 not known, 1 published, 2 not */
#define OUT(x, g) outcome[(x) * NG + (g)]

/* coordinators' messages and answers; AT_G(g, v) */
#define GV(g, v) ((g) * NV + (v))
bit marked[NG * NV];            /* answered: durable, held */
byte by[NG * NV];               /* by which owner, + 1: what the transaction compares */
bit unbroken[NG * NV];          /* release was answered so */
bit committing[NG];             /* the transaction was sent */
bit told_no[NG];                /* the user was told that there is none */

/* ghosts */
byte next;                      /* the next write of the chain */
bit chain[W];                   /* acknowledged, or read by somebody */
byte place[NG * NV];            /* of the mark in its log, + 1 */

/* A write was acknowledged, or shown. */
#define SEEN(r) if :: (r) >= 1 && (r) <= W -> chain[(r) - 1] = 1 :: else fi

/* R22: whoever sees a write that was begun after another was acknowledged sees that, too. `seen` before the mark. */
inline check_instant(g) {
    for (k : 1 .. W) {
        y = 0;
        for (v : 0 .. NV - 1) {
            for (b : 0 .. LEN - 1) {
                if :: b + 1 < place[GV(g, v)] && log[AT(v, b)] == k -> y = 1 :: else fi
            }
        }
        assert(!(y && z));      /* an earlier one was missing */
        if :: !y -> z = 1 :: else fi
    }
    k = 0; y = 0; z = 0; v = 0; b = 0
}

#ifdef BUG_NO_OWNER
#define OWNERS_AS_MARKED true
#else
#if NV > 2
#define OWNERS_AS_MARKED (by[GV(me, 0)] == epoch[0] && by[GV(me, 1)] == epoch[1] && by[GV(me, 2)] == epoch[2])
#else
#define OWNERS_AS_MARKED (by[GV(me, 0)] == epoch[0] && by[GV(me, 1)] == epoch[1])
#endif
#endif
#if NV > 2
#define ALL(a) (a[GV(me, 0)] && a[GV(me, 1)] && a[GV(me, 2)])
#else
#define ALL(a) (a[GV(me, 0)] && a[GV(me, 1)])
#endif

/* The transaction on its way. It succeeds at most once, because it deletes what it compares. */
proctype late(byte me) {
    byte k, y, z, v, b;
end:
    atomic { committing[me] && key[me] && OWNERS_AS_MARKED ->
        key[me] = 0;
        assert(!told_no[me]);
        for (v : 0 .. NV - 1) {
            snap[GV(me, v)] = 1;
            assert(log[AT(v, place[GV(me, v)] - 1)] == MARK(me));   /* what is published is in the log … */
            /* … and the owner, this one or any later one that looked already, doesn't take it for void (nothing is freed wrongly) */
            for (b : 0 .. NO - 1) {
                assert(b + 1 < by[GV(me, v)] || OUT(X(v, b), me) != 2)
            }
        }
        v = 0; b = 0;
        check_instant(me)
    }
}

#ifdef BUG_COMMIT_UNCHECKED
#define MAY_COMMIT ALL(marked)
#else
#define MAY_COMMIT ALL(unbroken)
#endif

proctype coordinator(byte me) {
    byte v, x;
    atomic { key[me] = 1; begun[me] = 1 }
    /* mark: whoever has it, or had it, is asked; each answers or not */
    do
    :: atomic { v < NV ->
        if
        :: x = X(v, 0)
        :: x = X(v, 1)
        fi;
        if
        :: serves[x] && group[x] == 0 && fence[v] == x % NO + 1 && sent[v] < LEN ->
            group[x] = me + 1; over[x] = 0; held[x] = 0;
            log[AT(v, sent[v])] = MARK(me); sent[v]++; place[GV(me, v)] = sent[v]; by[GV(me, v)] = x % NO + 1; v++
        :: else -> goto give_up
        fi;
        x = 0 }
    :: v == NV -> break
    od;
    v = 0;
    do
    :: atomic { v < NV && marked[GV(me, v)] -> v++ }
    :: v < NV -> goto give_up                       /* it failed, or its answer didn't come */
    :: v == NV -> break
    od;
    v = 0;
    /* release */
    do
    :: atomic { v < NV ->
        x = X(v, by[GV(me, v)] - 1);
        if
        :: group[x] == me + 1 ->
            if :: !over[x] -> unbroken[GV(me, v)] = 1 :: else fi;
            over[x] = 1; held[x] = 0
        :: else
        fi;
        x = 0; v++ }
    :: v < NV -> goto give_up
    :: v == NV -> break
    od;
    v = 0;
    if
    :: MAY_COMMIT -> committing[me] = 1
    :: else -> goto give_up
    fi;
    /* its outcome is known, or he doesn't wait for it any longer */
give_up:
    atomic {                                         /* deletes it, or finds it gone; then the snapshot's own key tells */
#ifndef BUG_TELLS_EARLY
        key[me] = 0;
#endif
        if :: !snap[GV(me, 0)] -> told_no[me] = 1 :: else fi }
}

proctype owner(byte vol; byte o) {
    byte x, i, g, l;
    x = X(vol, o);
#ifdef BUG_TAKER_LOOKS_FIRST
    atomic { epoch[vol] == o ->                     /* which marks count, before it has raised the epoch */
        for (g : 0 .. NG - 1) {
            if :: place[GV(g, vol)] -> OUT(x, g) = 2 - snap[GV(g, vol)] :: else fi
        }
        g = 0 }
#endif
    /* acquire */
    atomic { epoch[vol] == o -> epoch[vol] = o + 1 }
    /* recover: fence; the log ends anywhere from what is durable to what was sent */
    atomic { fence[vol] <= o ->
        if :: fence[vol] > 0 -> knows[X(vol, fence[vol] - 1)] = dur[vol] :: else fi;
        fence[vol] = o + 1;
        l = dur[vol];
        do
        :: l < sent[vol] -> l++
        :: break
        od;
        for (i : 0 .. LEN - 1) {
            if :: i >= l -> log[AT(vol, i)] = 0 :: else fi
        }
        sent[vol] = l; dur[vol] = l; app[x] = l; i = 0
    }
    /* one after the other: does each mark's key exist? */
    do
    :: atomic { i < l ->
        if
        :: log[AT(vol, i)] > W ->
#ifndef BUG_TAKER_LOOKS_FIRST
            g = log[AT(vol, i)] - W - 1;
            OUT(x, g) = 2 - snap[GV(g, vol)]
#endif
        :: else
        fi;
        g = 0; i++ }
    :: i == l -> break
    od;
    atomic { epoch[vol] == o + 1 ->                     /* one transaction; then what was found is shown */
        serves[x] = 1;
        for (i : 0 .. LEN - 1) { SEEN(log[AT(vol, i)]) }
        i = 0; l = 0 }
    do
    /* it sends the next write of the chain, if that is for this volume */
    :: atomic { next < W && next % NV == vol && (next == 0 || chain[next - 1]) && fence[vol] == o + 1 && sent[vol] < LEN ->
        log[AT(vol, sent[vol])] = next + 1; sent[vol]++; next++ }
    /* all replicas have it */
    :: atomic { fence[vol] == o + 1 && dur[vol] < sent[vol] -> dur[vol]++ }
    /* applied: acknowledged, and shown to reads; nothing that follows a mark while that is held */
    :: atomic { !held[x] && ((fence[vol] == o + 1 && app[x] < dur[vol]) || (fence[vol] > o + 1 && app[x] < knows[x])) ->
        i = log[AT(vol, app[x])]; app[x]++;
        if
        :: i > W && i - W == group[x] && !over[x] ->
#ifndef BUG_ACK_IN_HOLD
            held[x] = 1;
#endif
            marked[GV(i - W - 1, vol)] = 1
        :: i > 0 && i <= W -> SEEN(i)
        :: else                                     /* a mark of a hold that has ended: an error is answered */
        fi;
        i = 0 }
    /* the deadline: a hold may end at any time */
    :: atomic { group[x] && !over[x] -> over[x] = 1; held[x] = 0;
#ifdef BUG_DEADLINE_UNBROKEN
        if :: marked[GV(group[x] - 1, vol)] -> unbroken[GV(group[x] - 1, vol)] = 1 :: else fi
#endif
        }
    /* released, or broken: the outcome is known when the key is gone; who is tired of waiting deletes it */
    :: atomic { group[x] && over[x] ->
#ifndef BUG_ASSUME_VOID
        key[group[x] - 1] = 0
#endif
        }
        atomic { g = group[x] - 1; OUT(x, g) = 2 - snap[GV(g, vol)]; group[x] = 0; g = 0 }
    :: atomic { group[x] && over[x] && !key[group[x] - 1] ->
        g = group[x] - 1; OUT(x, g) = 2 - snap[GV(g, vol)]; group[x] = 0; g = 0 }
    od
}

init {
    byte v, o;
    atomic {
        for (v : 0 .. NV - 1) {
            for (o : 0 .. NO - 1) {
                if :: (v == 0 && o >= NO0) || (v == 1 && o >= NO1) :: else -> run owner(v, o) fi
            }
        }
        v = 0; o = 0;
        for (o : 0 .. NG - 1) { run coordinator(o); run late(o) }
    }
}
