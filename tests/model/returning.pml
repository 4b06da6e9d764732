/*
 * Where the copies of one sealed segment are (R28, R31, R33): NS servers, of which two are to have it, each with its own idea of the map; a
 * manager that changes the map, at most to revision NR; an owner who says, NT times, that something is free. Servers
 * may stop at any step and go on later or begin anew; they miss what happens meanwhile, and FAULTS times a disk is wiped, or comes back as it was once.
 *
 * A server's rounds: it copies what it should have and hasn't (taking the seal, if it has a copy that was never sealed), takes what peers know to be free,
 * and deletes what it shouldn't have when all that should have it say so under the same map. Each question and each answer is a step of
 * its own. Contents don't matter: all sealed copies are alike. Run: see README.
 */
#ifndef NS
#define NS 3
#endif
#ifndef NR
#define NR 3                    /* revisions of the map */
#endif
#ifndef NT
#define NT 1                    /* sets of blocks that become free */
#endif
#ifndef FAULTS
#define FAULTS 0
#endif
#define HAS(m, s) (((m) >> (s)) & 1)
#define BIT(s) (1 << (s))

byte copy[NS];                  /* 0 none, 1 not sealed, 2 sealed */
byte frees[NS];                 /* its bitmap: a bit for each of NT sets */
byte carried[NS];               /* frees that a copy in the making will have */
byte map[NS];                   /* revision it knows; 0: it has just begun */
bit going[NS];                  /* about to delete its copy */
byte nothing[NS];               /* rounds under this map that found nothing here, at most 2 */
byte faults = FAULTS;
byte was_copy[NS], was_frees[NS];   /* what its disk was once: an old state may come back */

/* the catalog's map, and what it was */
byte rev = 1;
byte target[NR + 1], former[NR + 1];

byte omap = 1;                  /* the owner's idea */
byte told;                      /* frees that were answered by all that were asked: he has forgotten them */
byte first_sealed;              /* ghost: how many sealed copies there were */

#define SEALED(s) (copy[s] == 2)
#if NS > 3
#define SEALED_COUNT (SEALED(0) + SEALED(1) + SEALED(2) + SEALED(3))
#define KNOWN ((copy[0] != 0) * frees[0] | (copy[1] != 0) * frees[1] | (copy[2] != 0) * frees[2] | (copy[3] != 0) * frees[3] | \
    carried[0] | carried[1] | carried[2] | carried[3])
#define WHERE (SEALED(0) | SEALED(1) << 1 | SEALED(2) << 2 | SEALED(3) << 3)
#else
#define SEALED_COUNT (SEALED(0) + SEALED(1) + SEALED(2))
#define KNOWN ((copy[0] != 0) * frees[0] | (copy[1] != 0) * frees[1] | (copy[2] != 0) * frees[2] | carried[0] | carried[1] | carried[2])
#define WHERE (SEALED(0) | SEALED(1) << 1 | SEALED(2) << 2)
#endif
#define PLACES(r) (target[r] | former[r])

/* No fewer sealed copies than there were, but for what faults took; found by who looks where the map says; and of what the owner
 * has forgotten somebody knows that it is free. */
#define CHECK \
    assert(SEALED_COUNT + FAULTS - faults >= first_sealed); \
    assert(faults < FAULTS || (WHERE & ~PLACES(rev)) == 0); \
    assert(faults < FAULTS || (told & ~KNOWN) == 0)

#ifdef BUG_HOLDS_ANY_MAP
#define SAME_MAP(t) true
#else
#define SAME_MAP(t) (map[t] == r)
#endif
#ifdef BUG_NOT_GOING
#define STAYS(t) true
#else
#define STAYS(t) (!going[t])
#endif

proctype server(byte me) {
    byte r, p, seen, sources;
    do
    /* a round that finds nothing */
    :: atomic { copy[me] == 0 && map[me] && nothing[me] < 2 && HAS(former[map[me]], me) -> nothing[me]++ }
    /* one that takes the seal, then what its peers know to be free */
    :: atomic { copy[me] == 1 && map[me] && HAS(target[map[me]], me) && WHERE -> copy[me] = 2; CHECK }
    /* one that makes a copy: from those that had it when it looked */
    :: atomic { copy[me] == 0 && map[me] && HAS(target[map[me]], me) && WHERE -> sources = WHERE; nothing[me] = 0 }
        seen = 0;
        do
        :: atomic { sources & ~seen ->              /* what is free is asked of each; who doesn't answer is left out */
            if
            :: HAS(sources & ~seen, 0) -> p = 0
            :: HAS(sources & ~seen, 1) -> p = 1
            :: HAS(sources & ~seen, 2) -> p = 2
#if NS > 3
            :: HAS(sources & ~seen, 3) -> p = 3
#endif
            fi;
            if
            :: SEALED(p) -> carried[me] = carried[me] | frees[p]
            :: true
            fi;
            seen = seen | BIT(p); p = 0 }
        :: atomic { (sources & ~seen) == 0 -> seen = 0; break }
        od;
        if
        :: atomic { copy[me] == 0 -> copy[me] = 2; frees[me] = carried[me]; carried[me] = 0; sources = 0; CHECK }
        :: atomic { carried[me] = 0; sources = 0 }  /* it failed */
        fi
    /* once more, and in each later round: what a peer knows to be free */
    :: atomic { SEALED(me) && SEALED(0) && (frees[0] & ~frees[me]) -> frees[me] = frees[me] | frees[0] }
    :: atomic { SEALED(me) && SEALED(1) && (frees[1] & ~frees[me]) -> frees[me] = frees[me] | frees[1] }
    :: atomic { SEALED(me) && SEALED(2) && (frees[2] & ~frees[me]) -> frees[me] = frees[me] | frees[2] }
#if NS > 3
    :: atomic { SEALED(me) && SEALED(3) && (frees[3] & ~frees[me]) -> frees[me] = frees[me] | frees[3] }
#endif
    /* it shouldn't have it */
    :: atomic { copy[me] && map[me] && !HAS(target[map[me]], me) -> r = map[me]; seen = 0 }
        do
        :: atomic { target[r] & ~seen ->            /* each that should is asked: has it it, under this map? */
            if
            :: HAS(target[r] & ~seen, 0) -> p = 0
            :: HAS(target[r] & ~seen, 1) -> p = 1
            :: HAS(target[r] & ~seen, 2) -> p = 2
#if NS > 3
            :: HAS(target[r] & ~seen, 3) -> p = 3
#endif
            fi;
            if
            :: SAME_MAP(p) && SEALED(p) && STAYS(p) -> seen = seen | BIT(p)
            :: !(SAME_MAP(p) && SEALED(p) && STAYS(p)) -> p = 0; goto stays
            fi;
            p = 0 }
        :: goto stays
        :: atomic { (target[r] & ~seen) == 0 ->
            seen = 0;
            if :: map[me] != r -> goto stays :: else -> going[me] = 1; break fi }
        od;
#ifndef BUG_FREES_GO
        /* what it knows to be free they are to know, too; from here on it takes no more of it */
        do
        :: atomic { target[r] & ~seen ->
            if
            :: HAS(target[r] & ~seen, 0) -> p = 0
            :: HAS(target[r] & ~seen, 1) -> p = 1
            :: HAS(target[r] & ~seen, 2) -> p = 2
#if NS > 3
            :: HAS(target[r] & ~seen, 3) -> p = 3
#endif
            fi;
            if
            :: copy[p] && STAYS(p) -> frees[p] = frees[p] | frees[me]; seen = seen | BIT(p); p = 0
            :: !(copy[p] && STAYS(p)) -> p = 0; goto stays
            fi }
        :: goto stays
        :: atomic { (target[r] & ~seen) == 0 ->
            if :: map[me] != r -> goto stays :: else -> break fi }
        od;
#endif
        atomic { copy[me] = 0; frees[me] = 0; CHECK };
stays:
        atomic { going[me] = 0; seen = 0; r = 0 }
#if FAULTS > 0
    /* what its disk is now may come back */
    :: atomic { faults && copy[me] != was_copy[me] || frees[me] != was_frees[me] -> was_copy[me] = copy[me]; was_frees[me] = frees[me] }
    :: atomic { faults > 0 ->
        faults--; map[me] = 0; nothing[me] = 0;
        if
        :: copy[me] = 0; frees[me] = 0
        :: copy[me] = was_copy[me]; frees[me] = was_frees[me]
        fi;
        CHECK }
#endif
    od
}

#ifdef BUG_FORGET_UNASKED
#define SAYS_NOTHING(s) true
#else
#define SAYS_NOTHING(s) (nothing[s] == 2 && map[s] == r)
#endif
#define FORGETS(s) :: atomic { r && rev == r && r < NR && HAS(gone, s) -> \
    target[r + 1] = target[r]; former[r + 1] = former[r] & ~BIT(s); rev = r + 1; r = 0; gone = 0; CHECK }
#define ASKS(s) :: atomic { !r && HAS(former[rev], s) -> r = rev; if :: SAYS_NOTHING(s) -> gone = BIT(s) :: else -> r = 0 fi }

#define LEARNS(s) :: atomic { map[s] < rev -> map[s] = rev; nothing[s] = 0 }

/* Each change compares the map with the one it was made from. Servers learn of it at any time, also amid a round. */
proctype manager() {
    byte r, gone;
    do
    LEARNS(0)
    LEARNS(1)
    LEARNS(2)
#if NS > 3
    LEARNS(3)
#endif
    :: atomic { rev < NR ->
        if
        :: target[rev] != 3 -> target[rev + 1] = 3
        :: target[rev] != 5 -> target[rev + 1] = 5
        :: target[rev] != 6 -> target[rev + 1] = 6
#if NS > 3
        :: target[rev] != 9 -> target[rev + 1] = 9
        :: target[rev] != 10 -> target[rev + 1] = 10
        :: target[rev] != 12 -> target[rev + 1] = 12
#endif
        fi;
        former[rev + 1] = (former[rev] | target[rev]) & ~target[rev + 1];
        rev++; r = 0; gone = 0; CHECK }
    ASKS(0)
    ASKS(1)
    ASKS(2)
#if NS > 3
    ASKS(3)
#endif
    FORGETS(0)
    FORGETS(1)
    FORGETS(2)
#if NS > 3
    FORGETS(3)
#endif
    od
}

#ifdef BUG_FREES_GO
#define TAKES_FREES(s) (copy[s] != 0)
#else
#define TAKES_FREES(s) (copy[s] != 0 && !going[s])
#endif

#define TELL(s) \
    if \
    :: TAKES_FREES(s) -> frees[s] = frees[s] | BIT(k); good = 1 \
    :: copy[s] == 0 \
    :: copy[s] != 0 && !TAKES_FREES(s) -> goto again \
    :: good && !HAS(target[r], s)               /* it doesn't answer */ \
    fi; \
    seen = seen | BIT(s)

/* All that may have a copy are told; one that has none needs nothing, and one that doesn't answer need not be waited for if it
 * isn't one that should have it. */
proctype owner() {
    byte k, seen, good, r;
    do
    :: omap < rev -> omap = rev
    :: atomic { k < NT -> seen = 0; good = 0; r = omap }
        do
        :: atomic { PLACES(r) & ~seen ->
            if
            :: HAS(PLACES(r) & ~seen, 0) -> TELL(0)
            :: HAS(PLACES(r) & ~seen, 1) -> TELL(1)
            :: HAS(PLACES(r) & ~seen, 2) -> TELL(2)
#if NS > 3
            :: HAS(PLACES(r) & ~seen, 3) -> TELL(3)
#endif
            fi }
        :: goto again
        :: atomic { (PLACES(r) & ~seen) == 0 ->
#ifdef BUG_NOBODY_NEEDS_IT
            told = told | BIT(k); k++; CHECK;
#else
            /* nobody has it: then the map is old */
            if :: good -> told = told | BIT(k); k++; CHECK :: else fi;
#endif
            break }
        od;
again:
        atomic { seen = 0; good = 0; r = 0 }
    od
}

init {
    atomic {
        target[1] = 3;
        copy[0] = 2;
#ifdef UNSEALED
        copy[1] = 1; first_sealed = 1;
#else
        copy[1] = 2; first_sealed = 2;
#endif
        map[0] = 1; map[1] = 1; map[2] = 1;
        run server(0); run server(1); run server(2);
#if NS > 3
        map[3] = 1; run server(3);
#endif
        run manager(); run owner()
    }
}
