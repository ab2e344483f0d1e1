/* Improve the order of one van's remaining stops until a deadline: the search behind shared/resequence.py.
 *
 * What an order costs is defined by shared/routes.py; this file computes the same number, fast, in integers only, so
 * that a seed and a number of looks give the same order on every architecture.
 *
 * The idea. The cost of everything after a position depends on the order before it only through the instant the van
 * arrives there. So each position keeps that cost as a piecewise-linear function of the arrival instant, and a changed
 * stretch is judged exactly by driving the stretch and asking one function: O(length of the stretch + log n). With one
 * slice of travel times and no break ("plain") the functions are convex and rise only, so their slopes bound from below
 * what a detour costs and most moves need not be driven at all; otherwise ("timed") they are general, with jumps.
 * Functions are kept only around the instants at which the van is expected (elsewhere the route is driven on until one
 * is known, so no judgement is ever a guess) and built from the back only down to where they are asked for: work in one
 * neighbourhood of the route costs the same on a long route as on a short one.
 *
 * The search is an iterated local search. A round disturbs a neighbourhood (strings of stops are taken out and put back
 * one by one, now and then two stretches change places), descends (segments of up to three stops move, either way
 * round, stretches are reversed, stops are swapped), and is kept or taken back. One `look` is one scan of the moves of
 * one stop, and the only thing counted: nothing depends on the clock except the look at which the search stops.
 *
 * Inside, node 0 is where the van stands when the frozen head is done, nodes 1..m are the stops in the order now
 * driven, node m + 1 is the end (a place without travel when the route is open). Instants count from `leave` in 32
 * bits, costs in 64.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif
/* Written once, compiled twice: with `timed` a constant, the plain search pays nothing for slices and breaks. */
#define INLINE static inline __attribute__((always_inline))
#define APART static __attribute__((noinline))

/* Two compiled copies of `function`, chosen by `timed`. */
#define TWICE(result, function, parameters, ...)                                  \
    APART result function##_plain parameters { return function(__VA_ARGS__, 0); } \
    APART result function##_timed parameters { return function(__VA_ARGS__, 1); }
#define EITHER(function, ...) (timed ? function##_timed(__VA_ARGS__) : function##_plain(__VA_ARGS__))

/* Found by trial on routes of 20 to 200 stops; none is critical. Positions unless said otherwise. */
enum {
    LONGEST_SEGMENT = 3,
    FIRST_NEAR = 12, /* The first descent moves stops this far only: it keeps what is good in the order given. */
    NEAR = 50,
    SWAP_NEAR = 8,
    BREADTH = 25, /* mean legs around the expected instants for which suffix functions are kept */
    TIMED_BREADTH = 6, /* the same, and the break's duration, where functions are dear to build */
    MOST_PIECES = 768,
    NEIGHBOURS = 40,
    MOST_REMOVED = 32,
    LONGEST_STRING = 12,
};

/* Mirrored by `_Problem` in shared/resequence.py. */
typedef struct {
    int32_t nodes, slices, stops, frozen, start, end; /* end < 0: open */
    const int32_t *travel;                            /* [slices][nodes][nodes] */
    const int64_t *slice_ends;                        /* [slices - 1] */
    const int64_t *service, *earliest, *latest, *weight, *load_change;
    const int32_t *order;
    int64_t leave, change_cost, load_now, capacity; /* capacity < 0: none */
    int32_t pairs, has_break;
    const int32_t *before, *after;
    int64_t break_duration, break_earliest, break_latest, break_weight;
    int64_t shift_end, shift_weight;
} ww_problem;

typedef struct {
    int64_t total, given_total, looks, rounds;
} ww_answer;

/* A stretch of a suffix function: from instant `from` on, `cost` + `slope` * (instant - from). */
typedef struct {
    int32_t from, slope;
    int64_t cost;
} Piece;

/* The slope of a piece over which the function is not kept; and an instant before any other. */
static const int32_t UNKNOWN = INT32_MIN, EVER = INT32_MIN / 2;

/* Where and when the van is, and what the time has cost so far: everything that changes with the clock. */
typedef struct {
    int node;
    int32_t begins; /* service begins at `node` */
    int rested;
    int64_t cost;
} Van;

typedef struct {
    int64_t change; /* of the total; 0 = no move found */
    int kind, from, length, to, reversed;
} Move;
enum { MOVE_SEGMENT, REVERSE, SWAP };

/* Of an arc: the cost no clock changes (least driving time + price of a changed arc); plain: service + travel. */
typedef struct {
    int32_t arc, travel;
} Leg;

/* Plain: from instant `at` on, each later unit of arriving adds at least `slope`. */
typedef struct {
    int32_t at;
    int64_t slope;
} Floor;

typedef struct {
    /* The task, compact. Matrices have side n = m + 2. */
    int m, n, timed;
    Leg *leg, *leg_into; /* [from][to], and the same by [to][from]: a scan for one stop's places stays in one row */
    int32_t *travel;     /* timed: travel per slice */
    int32_t *least;      /* timed: least travel over the slices */
    int slices;
    int32_t *slice_ends;
    int32_t *service, *earliest, *latest;
    int64_t *weight, *load_change;
    int64_t constant; /* what every order costs */
    int32_t shift_end;
    int64_t shift_weight;
    int has_break;
    int32_t break_duration, break_earliest, break_latest;
    int64_t break_weight;
    int is_loaded, is_ordered; /* capacity, precedence may bind */
    int64_t load_now, capacity;
    int32_t *before_start,
        *before; /* stops that must come before stop u: before[before_start[u] .. before_start[u+1]) */

    /* The route and what is known along it. Position 0 is the start, m + 1 the end. */
    int32_t *path, *place;
    Van *van;             /* [position] state when service begins there */
    int64_t *arcs;        /* arcs into positions 1..r */
    int64_t *reversed;    /* the same arcs driven backwards */
    int64_t *late_weight; /* weight of the stops at positions 1..r that are late or just in time */
    int64_t total;
    /* Plain only: */
    int32_t *arrives;    /* at position r, before waiting */
    int64_t *waits;      /* time waited at positions 1..r */
    int64_t *backward;   /* driving and service from position r back to 0 */
    int64_t *late_times; /* sum of weight * (backward + latest) of the stops counted in late_weight */
    Floor *floor;        /* [stop] of the suffix function that begins with it */

    /* Suffix functions, valid for positions >= suffix_from. */
    int suffix_from, stride;
    Piece *pieces;  /* [rested][stop it begins with][stride] */
    int32_t *count; /* [rested][stop it begins with] */
    Piece *scratch[2];
    int32_t breadth;       /* functions are kept this far around the instants at which the van is expected */
    int32_t expected_last; /* when the van was expected at the last stop as they were built */

    int32_t *best_path, *kept_path, *segment, *queue, *stamp;
    uint8_t *is_queued;
    int near, is_far; /* how far moves reach; whether segments may move anywhere */
    int queued, stamp_now, neighbour_count;
    int32_t *neighbours;
    int touched_lo, touched_hi; /* where path and kept_path may differ */
    int64_t best, kept;

    uint64_t random;
    int64_t looks, most_looks, deadline_ns;
    clockid_t clock;
} Search;

/* ---- Randomness and the clock ---- */

static uint64_t next_random(Search *s) { /* xorshift64*, Vigna 2016 */
    uint64_t x = s->random;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    s->random = x;
    return x * 2685821657736338717ull;
}

INLINE int below(Search *s, int bound) { return (int)(((next_random(s) >> 32) * (uint64_t)bound) >> 32); }

/* -ln(U) for U uniform in (0, 1], times 65536: integer part by counting bits, 16 fractional bits by squaring. */
static int64_t exponential(Search *s) {
    uint64_t x = (next_random(s) >> 32) | 1;
    int whole = __builtin_clzll(x) - 32;
    uint64_t mantissa = x << whole; /* in [2^31, 2^32) */
    int64_t log2 = 0;
    for (int bit = 0; bit < 16; bit++) {
        mantissa = (mantissa * mantissa) >> 31;
        log2 <<= 1;
        if (mantissa >> 32) {
            log2 |= 1;
            mantissa >>= 1;
        }
    }
    int64_t minus_log2 = ((int64_t)(whole + 1) << 16) - log2;
    return (minus_log2 * 45426) >> 16; /* ln 2 = 45426 / 65536 */
}

static int is_over(const Search *s) {
    if (s->looks >= s->most_looks) return 1;
    /* A thread's CPU clock costs a system call. */
    if (s->deadline_ns == 0 || (!s->timed && (s->looks & 3))) return 0;
    struct timespec now;
    clock_gettime(s->clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec >= s->deadline_ns;
}

/* ---- Driving ---- */

#define ARC(s, a, b) ((int64_t)(s)->leg[(a) * (s)->n + (b)].arc)
#define TRAVEL(s, a, b) ((s)->leg[(a) * (s)->n + (b)].travel)

/* Leaving a for b: `routes.arrival`. */
static int32_t arrival(const Search *s, int a, int b, int32_t departure) {
    const int32_t *travel = s->travel + a * s->n + b;
    int32_t side = s->n * s->n;
    int now = 0;
    while (now < s->slices - 1 && s->slice_ends[now] <= departure) now++;
    int32_t best = departure + travel[now * side];
    for (int later = now + 1; later < s->slices && s->slice_ends[later - 1] < best; later++) {
        int32_t waited = s->slice_ends[later - 1] + travel[later * side];
        if (waited < best) best = waited;
    }
    return best;
}

INLINE int64_t over(int32_t instant, int32_t limit, int64_t weight) {
    return instant > limit ? (int64_t)(instant - limit) * weight : 0;
}

/* Leave for the next node; returns the arrival (not yet waited for the window). */
APART int32_t drive_timed(const Search *s, Van *van, int next) {
    int32_t departure = van->begins + s->service[van->node];
    int32_t least = s->least[van->node * s->n + next];
    if (least < 0) return departure; /* The open end: nobody departs after the last stop. */
    if (!van->rested && departure >= s->break_earliest) {
        van->cost += over(departure, s->break_latest, s->break_weight);
        departure += s->break_duration;
        van->rested = 1;
    }
    int32_t arrives = arrival(s, van->node, next, departure);
    van->cost += arrives - departure - least;
    return arrives;
}

static void rest_while_waiting(const Search *s, Van *van, int32_t arrives, int32_t opens) {
    int32_t pause = arrives > s->break_earliest ? arrives : s->break_earliest;
    if (pause + s->break_duration > opens) return;
    van->cost += over(pause, s->break_latest, s->break_weight);
    van->rested = 1;
}

INLINE int32_t drive(const Search *s, Van *van, int next, const int timed) {
    return timed ? drive_timed(s, van, next) : van->begins + TRAVEL(s, van->node, next);
}

/* Having arrived, wait for the window and begin service. */
INLINE void arrive(const Search *s, Van *van, int next, int32_t arrives, const int timed) {
    int32_t opens = s->earliest[next];
    if (timed && !van->rested) rest_while_waiting(s, van, arrives, opens);
    van->begins = arrives > opens ? arrives : opens;
    van->cost += over(van->begins, s->latest[next], s->weight[next]);
    van->node = next;
}

APART void serve_timed(const Search *s, Van *van, int next) { arrive(s, van, next, drive_timed(s, van, next), 1); }

INLINE void serve(const Search *s, Van *van, int next, const int timed) {
    if (timed)
        serve_timed(s, van, next);
    else
        arrive(s, van, next, drive(s, van, next, 0), 0);
}

/* What finishing costs, beyond the end node's own window. */
INLINE int64_t finish_cost(const Search *s, const Van *van) {
    int64_t cost = over(van->begins, s->shift_end, s->shift_weight);
    if (!van->rested) cost += over(van->begins, s->break_latest, s->break_weight);
    return cost;
}

/* Bring everything that is known along the path up to date from position `lo` on. */
INLINE void drive_from(Search *s, int lo, const int timed) {
    const int32_t *path = s->path;
    Van van = s->van[lo - 1];
    int64_t arcs = s->arcs[lo - 1], reversed = s->reversed[lo - 1];
    for (int r = lo; r <= s->m + 1; r++) {
        int here = path[r];
        const Leg *back = &s->leg[here * s->n + path[r - 1]];
        arcs += ARC(s, path[r - 1], here);
        reversed += back->arc;
        int32_t arrives = drive(s, &van, here, timed);
        arrive(s, &van, here, arrives, timed);
        int64_t late_weight = van.begins >= s->latest[here] ? s->weight[here] : 0;
        s->late_weight[r] = s->late_weight[r - 1] + late_weight;
        if (!timed) {
            s->arrives[r] = arrives;
            s->waits[r] = s->waits[r - 1] + van.begins - arrives;
            s->backward[r] = s->backward[r - 1] + back->travel;
            s->late_times[r] = s->late_times[r - 1] + late_weight * (s->backward[r] + s->latest[here]);
        }
        s->van[r] = van;
        s->arcs[r] = arcs;
        s->reversed[r] = reversed;
        s->place[here] = r;
    }
    s->total = arcs + van.cost + finish_cost(s, &van);
}

TWICE(void, drive_from, (Search * s, int lo), s, lo)

/* ---- Suffix functions ---- */

/* Functions are kept by the stop at their position: they stay where they are when stops before them come and go. */
INLINE Piece *suffix(const Search *s, int rested, int position) {
    return s->pieces + (size_t)(rested * s->n + s->path[position]) * (size_t)s->stride;
}
#define COUNT(s, rested, position) ((s)->count[(rested) * (s)->n + (s)->path[position]])

/* The piece that holds at `instant`; before the first piece that is the first. */
INLINE const Piece *piece_at(const Piece *pieces, int count, int32_t instant) {
    const Piece *low = pieces;
    while (count > 1) {
        int half = count >> 1;
        low += low[half].from <= instant ? half : 0;
        count -= half;
    }
    return low;
}

/* The cost at an instant within or before a known piece; a function is constant before its first piece. */
INLINE int64_t cost_at(const Piece *piece, int32_t instant) {
    return instant <= piece->from ? piece->cost : piece->cost + (int64_t)piece->slope * (instant - piece->from);
}

/* A removed segment seldom brings what follows forward by more than this; the floors of the slopes are taken there. */
INLINE int32_t usual_saving(const Search *s) { return s->breadth / 8; }

/* Plain: F_r(x) = weight * max(0, y - latest) + F_{r+1}(y + travel), y = max(x, earliest). Convex and rising, so each
 * piece but the first begins with a hinge; unknown can only be the first piece and the last. */
static void build_plain(Search *s, int r) {
    int node = s->path[r];
    Piece *out = suffix(s, 0, r);
    int32_t opens = s->earliest[node], closes = s->latest[node];
    int64_t weight = s->weight[node];
    int count = 0;
    if (r == s->m + 1) {
        int32_t first = closes, second = s->shift_end > opens ? s->shift_end : opens;
        int64_t first_weight = weight, second_weight = s->shift_weight;
        if (second < first) {
            first = second, second = closes;
            first_weight = s->shift_weight, second_weight = weight;
        }
        int64_t base = over(opens, s->shift_end, s->shift_weight);
        out[count++] = (Piece){opens, 0, base};
        out[count++] = (Piece){first, (int32_t)first_weight, base};
        out[count++] = (Piece){second, (int32_t)(first_weight + second_weight), base + (second - first) * first_weight};
        COUNT(s, 0, r) = count;
        return;
    }
    const Piece *piece = suffix(s, 0, r + 1), *stop = piece + COUNT(s, 0, r + 1);
    int32_t travel = TRAVEL(s, node, s->path[r + 1]);
    int32_t from = opens, until = s->van[r].begins + s->breadth;
    if (from < s->van[r].begins - s->breadth) from = s->van[r].begins - s->breadth;
    if (piece->slope == UNKNOWN) {
        piece++;
        if (piece < stop && from < piece->from - travel) from = piece->from - travel;
    }
    if (stop[-1].slope == UNKNOWN) {
        stop--;
        if (until > stop->from - travel) until = stop->from - travel;
    }
    if (piece >= stop || from >= until) {
        out[0] = (Piece){EVER, UNKNOWN, 0};
        COUNT(s, 0, r) = 1;
        return;
    }
    if (from > opens) out[count++] = (Piece){EVER, UNKNOWN, 0};
    int32_t reaches = from + travel;
    const Piece *holds = piece_at(piece, (int)(stop - piece), reaches);
    int64_t value = cost_at(holds, reaches);
    int32_t slope = reaches < holds->from ? 0 : holds->slope;
    piece = reaches < holds->from && holds->slope > 0 ? holds : holds + 1; /* Every piece but the first is steeper. */
    if (from >= closes) {
        out[count++] = (Piece){from, slope + (int32_t)weight, value + weight * (from - closes)};
    } else {
        out[count++] = (Piece){from, slope, value};
        int32_t end = closes < until ? closes : until;
        for (; piece < stop && piece->from - travel < end; piece++)
            out[count++] = (Piece){piece->from - travel, piece->slope, piece->cost};
        if (closes < until && weight > 0) {
            Piece last = out[count - 1];
            out[count++] = (Piece){closes, last.slope + (int32_t)weight, cost_at(&last, closes)};
            if (piece < stop && piece->from - travel == closes) out[count - 1].slope = piece++->slope + (int32_t)weight;
        }
    }
    for (; piece < stop && piece->from - travel < until; piece++) {
        int32_t x = piece->from - travel;
        out[count++] = (Piece){x, piece->slope + (int32_t)weight, piece->cost + weight * (x - closes)};
    }
    out[count++] = (Piece){until, UNKNOWN, 0};
    COUNT(s, 0, r) = count;
}

static void set_floor(Search *s, int r) {
    int32_t at = s->arrives[r] - usual_saving(s);
    const Piece *piece = piece_at(suffix(s, 0, r), COUNT(s, 0, r), at);
    int is_rising = piece->slope != UNKNOWN && at >= piece->from;
    s->floor[s->path[r]] = (Floor){at, is_rising ? piece->slope : 0};
}

typedef struct {
    Piece *pieces;
    int count, most;
} Function;

INLINE int32_t steeper(int32_t slope, int64_t by) { return slope == UNKNOWN ? UNKNOWN : slope + (int32_t)by; }

INLINE void append(Function *f, int32_t from, int64_t cost, int32_t slope) {
    if (f->count > 0) {
        Piece *last = &f->pieces[f->count - 1];
        if (last->from == from) {
            last->cost = cost, last->slope = slope;
            return;
        }
        if (last->slope == slope && (slope == UNKNOWN || cost_at(last, from) == cost)) return;
    }
    if (f->count < f->most)
        f->pieces[f->count++] = (Piece){from, slope, cost};
    else
        f->pieces[f->count - 1].slope = UNKNOWN;
}

/* Copy `in` as of instant `from`, up to `until`, shifted so that instant x of it becomes x - shift, raised by `extra`.
 */
static void append_shifted(Function *out, const Piece *in, int count, int32_t from, int32_t until, int32_t shift,
                           int64_t extra) {
    const Piece *piece = piece_at(in, count, from), *stop = in + count;
    append(out, from - shift, cost_at(piece, from) + extra, from < piece->from ? 0 : piece->slope);
    for (piece += from < piece->from ? 0 : 1; piece < stop && piece->from < until; piece++)
        append(out, piece->from - shift, piece->cost + extra, piece->slope);
}

/* Cost from being ready to drive from `node` to position r on, as a function of that instant, break aside. */
static void drive_onward(const Search *s, Function *out, int rested, int node, int r, int32_t from, int32_t until) {
    const Piece *in = suffix(s, rested, r);
    int count = COUNT(s, rested, r), next = s->path[r];
    int32_t least = s->least[node * s->n + next];
    if (least < 0) {
        append_shifted(out, in, count, from, until, 0, 0);
        return;
    }
    const int32_t *travel = s->travel + node * s->n + next;
    int32_t side = s->n * s->n;
    for (int slice = 0; slice < s->slices && from < until; slice++) {
        int32_t slice_end = slice < s->slices - 1 ? s->slice_ends[slice] : INT32_MAX;
        if (slice_end <= from) continue;
        if (slice_end > until) slice_end = until;
        int32_t takes = travel[slice * side], by_waiting = INT32_MAX;
        for (int later = slice + 1; later < s->slices; later++) {
            int32_t waited = s->slice_ends[later - 1] + travel[later * side];
            if (waited < by_waiting) by_waiting = waited;
        }
        int32_t waits_from = by_waiting == INT32_MAX ? slice_end : by_waiting - takes;
        if (waits_from > slice_end) waits_from = slice_end;
        if (from < waits_from) {
            append_shifted(out, in, count, from + takes, waits_from + takes, takes, takes - least);
            from = waits_from;
        }
        if (from < slice_end) {
            const Piece *piece = piece_at(in, count, by_waiting);
            int64_t cost = by_waiting - from - least + cost_at(piece, by_waiting);
            append(out, from, cost, piece->slope == UNKNOWN ? UNKNOWN : -1);
            from = slice_end;
        }
    }
}

/* The function of arriving, from the function of being ready to leave again (`onward`), by the node's window and
 * service. */
static void serve_before(const Search *s, Function *out, const Function *onward, int node, int32_t from,
                         int32_t until) {
    int32_t opens = s->earliest[node], closes = s->latest[node], service = s->service[node];
    int64_t weight = s->weight[node];
    int32_t begins = from > opens ? from : opens;
    if (from < opens) {
        const Piece *piece = piece_at(onward->pieces, onward->count, opens + service);
        append(out, from, cost_at(piece, opens + service), piece->slope == UNKNOWN ? UNKNOWN : 0);
        if (until <= opens) return;
    }
    const Piece *piece = piece_at(onward->pieces, onward->count, begins + service),
                *stop = onward->pieces + onward->count;
    for (; piece < stop && piece->from - service < until; piece++) {
        int32_t x = piece->from - service > begins ? piece->from - service : begins;
        int32_t next = piece + 1 < stop ? piece[1].from - service : until;
        int64_t cost = cost_at(piece, x + service);
        append(out, x, cost + over(x, closes, weight), steeper(piece->slope, x >= closes ? weight : 0));
        if (x < closes && closes < next)
            append(out, closes, cost_at(piece, closes + service), steeper(piece->slope, weight));
    }
}

/* What arriving at the end costs: its window, the shift's end, and a break not yet had. */
static void build_timed_end(Search *s, int rested) {
    int node = s->n - 1;
    int32_t opens = s->earliest[node];
    Function out = {suffix(s, rested, s->m + 1), 0, s->stride};
    int32_t kinks[3] = {s->latest[node], s->shift_end, s->break_latest};
    int64_t weights[3] = {s->weight[node], s->shift_weight, rested ? 0 : s->break_weight};
    int32_t from = 0, last_pause = opens - s->break_duration;
    if (!rested &&
        last_pause >= s->break_earliest) { /* Until then the break fits into the wait for the end's window. */
        int64_t cost = over(opens, kinks[0], weights[0]) + over(opens, kinks[1], weights[1]);
        int32_t late = s->break_latest > s->break_earliest ? s->break_latest : s->break_earliest;
        append(&out, 0, cost + over(s->break_earliest, s->break_latest, s->break_weight), 0);
        if (late <= last_pause)
            append(&out, late, cost + over(late, s->break_latest, s->break_weight), (int32_t)s->break_weight);
        from = last_pause + 1;
    }
    for (int32_t x = from;;) {
        int32_t y = x > opens ? x : opens, next = x < opens ? opens : INT32_MAX;
        int64_t cost = 0, slope = 0;
        for (int kink = 0; kink < 3; kink++) {
            cost += over(y, kinks[kink], weights[kink]);
            if (x >= opens && x >= kinks[kink]) slope += weights[kink];
            if (x >= opens && kinks[kink] > x && kinks[kink] < next) next = kinks[kink];
        }
        append(&out, x, cost, (int32_t)slope);
        if (next == INT32_MAX) break;
        x = next;
    }
    COUNT(s, rested, s->m + 1) = out.count;
}

static void begin_function(Function *out, int32_t from) {
    if (from > 0) append(out, EVER, 0, UNKNOWN);
}

static void build_timed(Search *s, int r) {
    int node = s->path[r];
    int32_t opens = s->earliest[node], service = s->service[node];
    int32_t expected = s->van[r].begins;
    int32_t from = expected > s->breadth ? expected - s->breadth : 0, until = expected + s->breadth;
    int32_t ready_from = (from > opens ? from : opens) + service;
    int32_t ready_until = (until > opens ? until : opens) + service + 1;
    int leads_nowhere = s->least[node * s->n + s->path[r + 1]] < 0;

    Function rested = {s->scratch[0], 0, s->stride};
    int32_t rested_until = ready_until + (s->has_break ? s->break_duration : 0);
    drive_onward(s, &rested, 1, node, r + 1, ready_from, rested_until);
    Function out = {suffix(s, 1, r), 0, s->stride};
    begin_function(&out, from);
    serve_before(s, &out, &rested, node, from, until);
    append(&out, until, 0, UNKNOWN);
    COUNT(s, 1, r) = out.count;
    if (!s->has_break) return;

    /* Not yet rested: before the break's earliest instant drive on, after it rest first. */
    Function unrested = {s->scratch[1], 0, s->stride};
    int32_t due = leads_nowhere ? INT32_MAX : s->break_earliest, late = s->break_latest;
    if (ready_from < due) drive_onward(s, &unrested, 0, node, r + 1, ready_from, due < ready_until ? due : ready_until);
    int32_t rests_from = ready_from > due ? ready_from : due;
    for (int at = 0; at < rested.count && rests_from < ready_until; at++) {
        const Piece *piece = &rested.pieces[at];
        int32_t x = piece->from - s->break_duration;
        int32_t next = at + 1 < rested.count ? piece[1].from - s->break_duration : ready_until;
        if (next <= rests_from) continue;
        if (x < rests_from) x = rests_from;
        append(&unrested, x, cost_at(piece, x + s->break_duration) + over(x, late, s->break_weight),
               steeper(piece->slope, x >= late ? s->break_weight : 0));
        if (x < late && late < next)
            append(&unrested, late, cost_at(piece, late + s->break_duration), steeper(piece->slope, s->break_weight));
    }
    out = (Function){suffix(s, 0, r), 0, s->stride};
    begin_function(&out, from);
    int32_t last_pause = opens - s->break_duration, x = from;
    if (last_pause >= s->break_earliest && from <= last_pause) { /* The break fits into the wait. */
        const Piece *piece = piece_at(rested.pieces, rested.count, opens + service);
        int64_t onward = cost_at(piece, opens + service) + over(opens, s->latest[node], s->weight[node]);
        int is_known = piece->slope != UNKNOWN;
        int32_t first = from > s->break_earliest ? from : s->break_earliest, kink = late > first ? late : first;
        append(&out, from, onward + over(first, late, s->break_weight), is_known ? 0 : UNKNOWN);
        if (kink <= last_pause)
            append(&out, kink, onward + over(kink, late, s->break_weight),
                   is_known ? (int32_t)s->break_weight : UNKNOWN);
        x = last_pause + 1;
    }
    if (x < until) serve_before(s, &out, &unrested, node, x, until);
    append(&out, until, 0, UNKNOWN);
    COUNT(s, 0, r) = out.count;
}

/* The function of arriving at r as of `instant` is not kept so far from the expected instants: drive on until one is.
 */
INLINE int64_t rest_of_route(const Search *s, Van van, int r, int32_t arrives, int64_t limit, const int timed) {
    for (;;) {
        int rested = timed ? van.rested : 0;
        const Piece *piece = piece_at(suffix(s, rested, r), COUNT(s, rested, r), arrives);
        if (piece->slope != UNKNOWN) return van.cost + cost_at(piece, arrives);
        if (van.cost >= limit) return van.cost;
        arrive(s, &van, s->path[r], arrives, timed);
        r++;
        arrives = drive(s, &van, s->path[r], timed);
    }
}

INLINE void build_down_to(Search *s, int position, const int timed) {
    if (position < 1) position = 1;
    /* When the van is expected at quite other instants than the functions were built for, all are built anew. */
    int drift = s->van[s->m].begins - s->expected_last;
    if (drift > s->breadth / 2 || drift < -s->breadth / 2) {
        s->suffix_from = s->m + 2;
        s->expected_last = s->van[s->m].begins;
    }
    for (int r = s->suffix_from - 1; r >= position; r--) {
        if (!timed) {
            build_plain(s, r);
            set_floor(s, r);
        } else if (r == s->m + 1) {
            build_timed_end(s, 0);
            build_timed_end(s, 1);
        } else {
            build_timed(s, r);
        }
    }
    if (position < s->suffix_from) s->suffix_from = position;
}

/* ---- Hard constraints ---- */

/* Whether the path may carry s->segment at positions lo..hi, which hold the same stops in another order now. */
static int is_allowed(Search *s, int lo, int hi) {
    if (s->is_ordered) {
        int now = ++s->stamp_now;
        for (int r = lo; r <= hi; r++) {
            int stop = s->segment[r - lo];
            for (int at = s->before_start[stop]; at < s->before_start[stop + 1]; at++) {
                int first = s->before[at], position = s->place[first];
                if (position > hi || (position >= lo && s->stamp[first] != now)) return 0;
            }
            s->stamp[stop] = now;
        }
    }
    if (s->is_loaded) {
        int64_t load = s->load_now;
        for (int r = 1; r < lo; r++) load += s->load_change[s->path[r]];
        for (int r = lo; r <= hi; r++) {
            load += s->load_change[s->segment[r - lo]];
            if (load > s->capacity) return 0;
        }
    }
    return 1;
}

/* ---- Moves: written into s->segment as the new contents of positions lo..hi ---- */

static void spell(Search *s, const Move *move, int *lo, int *hi) {
    const int32_t *path = s->path;
    int32_t *out = s->segment;
    int i = move->from, last = move->from + move->length - 1, j = move->to;
    if (move->kind == REVERSE) {
        *lo = i, *hi = last;
        for (int r = last; r >= i; r--) *out++ = path[r];
    } else if (move->kind == SWAP) {
        *lo = i, *hi = j;
        memcpy(out, path + i, (size_t)(j - i + 1) * sizeof *out);
        out[0] = path[j];
        out[j - i] = path[i];
    } else {
        *lo = j > i ? i : j + 1, *hi = j > i ? j : last;
        if (j > i)
            for (int r = last + 1; r <= j; r++) *out++ = path[r];
        if (move->reversed)
            for (int r = last; r >= i; r--) *out++ = path[r];
        else
            for (int r = i; r <= last; r++) *out++ = path[r];
        if (j < i)
            for (int r = j + 1; r < i; r++) *out++ = path[r];
    }
}

INLINE void consider(Search *s, Move *best, Move move) {
    if (move.change >= best->change) return;
    if (s->is_ordered || s->is_loaded) {
        int lo, hi;
        spell(s, &move, &lo, &hi);
        if (!is_allowed(s, lo, hi)) return;
    }
    *best = move;
}

/* Drive positions from..to of the path (backwards when to < from); false as soon as time has cost `limit`. */
INLINE int drive_stretch(const Search *s, Van *van, int from, int to, int64_t limit, const int timed) {
    int step = from <= to ? 1 : -1;
    for (int r = from;; r += step) {
        serve(s, van, s->path[r], timed);
        if (van->cost >= limit) return 0;
        if (r == to) return 1;
    }
}

/* What the whole route costs in time when the van goes on to position r; at least `limit` when it costs so much. */
INLINE int64_t time_cost(const Search *s, Van van, int r, int64_t limit, const int timed) {
    int32_t arrives = drive(s, &van, s->path[r], timed);
    return rest_of_route(s, van, r, arrives, limit, timed);
}

/* The rise of the suffix function of position r at an instant: each later unit of arriving adds at least this. */
INLINE int64_t slope_at(const Search *s, int r, int32_t instant) {
    const Piece *piece = piece_at(suffix(s, 0, r), COUNT(s, 0, r), instant);
    return piece->slope == UNKNOWN || instant < piece->from ? 0 : piece->slope;
}

INLINE int64_t own_lateness(const Search *s, int stop, int64_t begins) {
    return begins > s->latest[stop] ? (begins - s->latest[stop]) * s->weight[stop] : 0;
}

/* Move the segment of `length` stops at position i anywhere within `near` positions, either way round.
 * Wherever it goes, time costs at least what it costs without the segment, plus what its detour delays (plain). */
INLINE void try_segment(Search *s, int i, int length, int near, Move *best, const int timed) {
    int m = s->m, last = i + length - 1;
    if (i < 1 || last > m) return;
    const int32_t *path = s->path;
    int before = path[i - 1], head = path[i], tail = path[last], after = path[last + 1];
    int furthest = last + near < m ? last + near : m, nearest = i - 1 - near > 0 ? i - 1 - near : 0;
    int64_t now = s->total - s->arcs[m + 1]; /* what time costs at present */
    int64_t removed = ARC(s, before, after) - ARC(s, before, head) - ARC(s, tail, after);
    int64_t turned = (s->reversed[last] - s->reversed[i]) - (s->arcs[last] - s->arcs[i]);
    int ways = length > 1 ? 2 : 1;

    if (length > 1) {
        int64_t arcs = ARC(s, before, tail) + ARC(s, head, after) - ARC(s, before, head) - ARC(s, tail, after) + turned;
        Van van = s->van[i - 1];
        int64_t limit = best->change + now - arcs;
        if (van.cost < limit && drive_stretch(s, &van, last, i, limit, timed))
            consider(s, best,
                     (Move){arcs + time_cost(s, van, last + 1, limit, timed) - now, REVERSE, i, length, last, 0});
    }

    Van without = s->van[i - 1];
    int64_t gone =
        removed + time_cost(s, without, last + 1, INT64_MAX, timed) - now; /* the change when it just vanishes */
    if (gone >= best->change) return;
    const Leg *into[2] = {&s->leg_into[head * s->n], &s->leg_into[tail * s->n]};
    const Leg *from[2] = {&s->leg[tail * s->n], &s->leg[head * s->n]};
    int64_t inside_arcs[2] = {0, turned}, inside[2] = {0, 0};
    if (!timed) {
        inside[1] = s->backward[last] - s->backward[i];
        for (int r = i; r < last; r++) inside[0] += TRAVEL(s, path[r], path[r + 1]);
    }
    int32_t direct = timed ? 0 : without.begins + TRAVEL(s, before, after);
    int32_t saved = timed ? 0 : s->arrives[last + 1] - direct;

    Van ahead = without;
    int reached = last;
    for (int j = last + 1; j <= furthest; j++) {
        int a = path[j], b = path[j + 1];
        int64_t opened = gone - (s->arcs[j + 1] - s->arcs[j]);
        for (int way = 0; way < ways; way++) {
            int64_t change = opened + into[way][a].arc + from[way][b].arc + inside_arcs[way];
            if (change >= best->change) continue;
            if (!timed) {
                Floor floor = s->floor[b];
                int64_t detour = into[way][a].travel + inside[way] + from[way][b].travel - TRAVEL(s, a, b);
                if (detour > 0 && s->arrives[j + 1] - saved >= floor.at) change += floor.slope * detour;
                /* The segment itself gets there no sooner than the van does now, less what its absence saves. */
                int64_t there = s->van[j].begins - (saved > 0 ? saved : 0) + into[way][a].travel;
                change += own_lateness(s, way ? tail : head, there);
                if (length > 1) change += own_lateness(s, way ? head : tail, there + inside[way]);
                if (change >= best->change) continue;
            }
            for (; reached < j; reached++) serve(s, &ahead, path[reached + 1], timed);
            int64_t arcs =
                removed - (s->arcs[j + 1] - s->arcs[j]) + into[way][a].arc + from[way][b].arc + inside_arcs[way];
            int64_t limit = best->change + now - arcs;
            Van van = ahead;
            if (van.cost >= limit) continue;
            if (!drive_stretch(s, &van, way ? last : i, way ? i : last, limit, timed)) continue;
            consider(s, best,
                     (Move){arcs + time_cost(s, van, j + 1, limit, timed) - now, MOVE_SEGMENT, i, length, j, way});
        }
    }

    int64_t slope = timed ? 0 : slope_at(s, last + 1, direct);
    int64_t onward = gone - removed + now - without.cost; /* what the part after the segment costs at least */
    for (int j = i - 2; j >= nearest; j--) {
        int a = path[j], b = path[j + 1];
        int64_t opened = gone - (s->arcs[j + 1] - s->arcs[j]);
        for (int way = 0; way < ways; way++) {
            int64_t change = opened + into[way][a].arc + from[way][b].arc + inside_arcs[way];
            if (change >= best->change) continue;
            if (!timed) {
                int64_t detour = into[way][a].travel + inside[way] + from[way][b].travel - TRAVEL(s, a, b);
                int64_t shift = detour - (s->waits[i - 1] - s->waits[j]);
                if (shift > 0 && change + shift * (slope + s->late_weight[i - 1] - s->late_weight[j]) >= best->change)
                    continue;
            }
            int64_t arcs =
                removed - (s->arcs[j + 1] - s->arcs[j]) + into[way][a].arc + from[way][b].arc + inside_arcs[way];
            int64_t limit = best->change + now - arcs - (timed ? 0 : onward);
            Van van = s->van[j];
            if (!drive_stretch(s, &van, way ? last : i, way ? i : last, limit, timed)) continue;
            int is_cheaper = 1;
            for (int r = j + 1; r < i; r++) {
                serve(s, &van, path[r], timed);
                if (van.begins == s->van[r].begins && van.rested == s->van[r].rested) { /* A wait absorbs the detour. */
                    van.cost += without.cost - s->van[r].cost;
                    van.begins = without.begins, van.node = without.node, van.rested = without.rested;
                    break;
                }
                if (van.cost >= limit) {
                    is_cheaper = 0;
                    break;
                }
            }
            if (!is_cheaper) continue;
            limit = best->change + now - arcs;
            consider(s, best,
                     (Move){arcs + time_cost(s, van, last + 1, limit, timed) - now, MOVE_SEGMENT, i, length, j, way});
        }
    }
}

TWICE(void, try_segment, (Search * s, int i, int length, int near, Move *best), s, i, length, near, best)

/* Reverse the stretch from position i to any position up to `near` further. Up to LONGEST_SEGMENT, `try_segment` does
 * it. */
INLINE void try_reverse(Search *s, int i, int near, Move *best, const int timed) {
    int m = s->m, furthest = i + near < m ? i + near : m;
    const int32_t *path = s->path;
    int64_t now = s->total - s->arcs[m + 1];
    for (int j = i + LONGEST_SEGMENT; j <= furthest; j++) {
        int64_t arcs = ARC(s, path[i - 1], path[j]) + ARC(s, path[i], path[j + 1]) - ARC(s, path[i - 1], path[i]) -
                       ARC(s, path[j], path[j + 1]) + (s->reversed[j] - s->reversed[i]) - (s->arcs[j] - s->arcs[i]);
        Van van = s->van[i - 1];
        int64_t limit = best->change + now - arcs;
        if (van.cost >= limit) continue;
        if (!timed) {
            /* Without any wait the stops that are late now begin at known instants, and the van goes on at a known one.
             */
            int64_t begins = van.begins + TRAVEL(s, path[i - 1], path[j]);
            int64_t late = (begins + s->backward[j]) * (s->late_weight[j] - s->late_weight[i - 1]) -
                           (s->late_times[j] - s->late_times[i - 1]);
            int32_t onward = (int32_t)(begins + s->backward[j] - s->backward[i] + TRAVEL(s, path[i], path[j + 1]));
            const Piece *piece = piece_at(suffix(s, 0, j + 1), COUNT(s, 0, j + 1), onward);
            if (piece->slope != UNKNOWN && van.cost + (late > 0 ? late : 0) + cost_at(piece, onward) >= limit) continue;
        }
        if (!drive_stretch(s, &van, j, i, limit, timed)) continue;
        consider(s, best, (Move){arcs + time_cost(s, van, j + 1, limit, timed) - now, REVERSE, i, j - i + 1, j, 0});
    }
}

/* Exchange the stop at position i with one up to `near` further on. */
INLINE void try_swap(Search *s, int i, int near, Move *best, const int timed) {
    int m = s->m, furthest = i + near < m ? i + near : m;
    const int32_t *path = s->path;
    int64_t now = s->total - s->arcs[m + 1];
    int a = path[i - 1], u = path[i];
    for (int j = i + 2; j <= furthest; j++) {
        int x = path[j];
        int64_t arcs = ARC(s, a, x) + ARC(s, x, path[i + 1]) + ARC(s, path[j - 1], u) + ARC(s, u, path[j + 1]) -
                       ARC(s, a, u) - ARC(s, u, path[i + 1]) - ARC(s, path[j - 1], x) - ARC(s, x, path[j + 1]);
        Van van = s->van[i - 1];
        int64_t limit = best->change + now - arcs;
        if (van.cost >= limit) continue;
        serve(s, &van, x, timed);
        if (!drive_stretch(s, &van, i + 1, j - 1, limit, timed)) continue;
        serve(s, &van, u, timed);
        consider(s, best, (Move){arcs + time_cost(s, van, j + 1, limit, timed) - now, SWAP, i, 1, j, 0});
    }
}

TWICE(void, try_reverse, (Search * s, int i, int near, Move *best), s, i, near, best)
TWICE(void, try_swap, (Search * s, int i, int near, Move *best), s, i, near, best)

/* ---- The search ---- */

static void enqueue(Search *s, int position) {
    if (position < 1 || position > s->m) return;
    int stop = s->path[position];
    if (s->is_queued[stop]) return;
    s->is_queued[stop] = 1;
    s->queue[s->queued++] = stop;
}

static void enqueue_all(Search *s) {
    for (int r = s->m; r >= 1; r--) enqueue(s, r);
}

INLINE void write_segment(Search *s, int lo, int hi, const int timed) {
    memcpy(s->path + lo, s->segment, (size_t)(hi - lo + 1) * sizeof *s->path);
    EITHER(drive_from, s, lo);
    if (s->suffix_from <= hi) s->suffix_from = hi + 1;
    if (lo < s->touched_lo) s->touched_lo = lo;
    if (hi > s->touched_hi) s->touched_hi = hi;
}

TWICE(void, write_segment, (Search * s, int lo, int hi), s, lo, hi)

/* One look: scan all moves of a stop and make the best one. True when something improved. */
INLINE int look(Search *s, int stop, const int timed) {
    int i = s->place[stop], near = s->near;
    Move best = {0, 0, 0, 0, 0, 0};
    build_down_to(s, i, timed);
    for (int length = 1; length <= LONGEST_SEGMENT; length++)
        EITHER(try_segment, s, i, length, s->is_far ? s->m : near, &best);
    EITHER(try_swap, s, i, near < SWAP_NEAR ? near : SWAP_NEAR, &best);
    EITHER(try_reverse, s, i, near, &best);
    if (best.change >= 0) return 0;
    int lo, hi;
    spell(s, &best, &lo, &hi);
    EITHER(write_segment, s, lo, hi);
    for (int near_end = -2; near_end <= 1; near_end++) {
        enqueue(s, lo + near_end);
        enqueue(s, hi - near_end);
    }
    return 1;
}

TWICE(int, look, (Search * s, int stop), s, stop)

/* Until no stop in the queue has an improving move; false when time ran out. */
INLINE int descend(Search *s, const int timed) {
    while (s->queued > 0) {
        int stop = s->queue[--s->queued];
        s->is_queued[stop] = 0;
        do {
            if (is_over(s)) return 0;
            s->looks++;
        } while (EITHER(look, s, stop));
    }
    return 1;
}

TWICE(int, descend, (Search * s), s)

static void remember_best(Search *s) {
    if (s->total >= s->best) return;
    s->best = s->total;
    memcpy(s->best_path, s->path, (size_t)s->n * sizeof *s->path);
}

/* A position to disturb, drawn where time is dear: of three the one with most late stops behind it. */
static int somewhere(Search *s, int positions) {
    int chosen = 1 + below(s, positions);
    for (int draw = 1; draw < 3; draw++) {
        int other = 1 + below(s, positions);
        if (s->late_weight[other] < s->late_weight[chosen]) chosen = other;
    }
    return chosen;
}

/* Swap two neighbouring stretches somewhere: a double bridge on a small scale. */
INLINE void disturb(Search *s, const int timed) {
    int m = s->m, times = 1 + below(s, 2);
    for (int time = 0; time < times; time++) {
        int longest = m < 12 ? m / 2 : (below(s, 3) ? 8 : m / 3 < 50 ? m / 3 : 50);
        int first = 1 + below(s, longest), second = 1 + below(s, longest);
        if (first + second > m) first = second = 1;
        int lo = somewhere(s, m - first - second + 1), hi = lo + first + second - 1;
        memcpy(s->segment, s->path + lo + first, (size_t)second * sizeof *s->segment);
        memcpy(s->segment + second, s->path + lo, (size_t)first * sizeof *s->segment);
        if (!is_allowed(s, lo, hi)) continue;
        EITHER(write_segment, s, lo, hi);
        int edges[6] = {lo - 1, lo, lo + second - 1, lo + second, hi, hi + 1};
        for (int edge = 0; edge < 6; edge++) enqueue(s, edges[edge]);
    }
}

/* The nearest other stops of stop `a`, nearest first: sorted when first asked for. */
static const int32_t *neighbours_of(Search *s, int a) {
    int32_t *near = s->neighbours + a * NEIGHBOURS;
    if (near[0]) return near;
    int all = s->n - 2, most = s->neighbour_count, found = 0;
    int64_t far[NEIGHBOURS];
    for (int b = 1; b <= all; b++) {
        if (b == a) continue;
        int64_t distance = ARC(s, a, b) < ARC(s, b, a) ? ARC(s, a, b) : ARC(s, b, a);
        if (found == most && distance >= far[found - 1]) continue;
        int at = found < most ? found++ : found - 1;
        for (; at > 0 && far[at - 1] > distance; at--) far[at] = far[at - 1], near[at] = near[at - 1];
        far[at] = distance, near[at] = b;
    }
    return near;
}

/* Between which positions precedence lets `stop` be inserted: after `low`, before `high`. */
static void bounds_of(const Search *s, int stop, int *low, int *high) {
    *low = 0, *high = s->m + 1;
    for (int at = s->before_start[stop]; at < s->before_start[stop + 1]; at++) {
        int position = s->place[s->before[at]];
        if (position > *low && position <= s->m && s->path[position] == s->before[at]) *low = position;
    }
    for (int r = 1; r < *high; r++)
        for (int at = s->before_start[s->path[r]]; at < s->before_start[s->path[r] + 1]; at++)
            if (s->before[at] == stop) *high = r;
}

/* Put `stop` where it costs least, now and then overlooking a place; returns its position. Timed functions are dear to
 * build, so there only the places near position `around` are tried. */
INLINE int insert_best(Search *s, int stop, int around, const int timed) {
    int m = s->m, best_at = -1, low = 0, high = m + 1;
    int64_t lowest = INT64_MAX, now = s->total - s->arcs[m + 1];
    if (s->is_ordered) bounds_of(s, stop, &low, &high);
    if (timed && around - NEAR > low && around - NEAR < high) low = around - NEAR;
    if (timed && around + NEAR < high && around + NEAR > low) high = around + NEAR;
    build_down_to(s, low + 1, timed);
    int places = high - low, start = below(s, places);
    for (int step = 0; step < places; step++) {
        int j = low + (start + step < places ? start + step : start + step - places);
        int64_t arcs = ARC(s, s->path[j], stop) + ARC(s, stop, s->path[j + 1]) - ARC(s, s->path[j], s->path[j + 1]);
        if (arcs >= lowest) continue;
        if (!timed && best_at >= 0) {
            int a = s->path[j], b = s->path[j + 1];
            int64_t there = (int64_t)s->van[j].begins + TRAVEL(s, a, stop), bound = arcs + own_lateness(s, stop, there);
            int64_t detour = there + TRAVEL(s, stop, b) - s->arrives[j + 1];
            if (detour > 0 && s->arrives[j + 1] >= s->floor[b].at) bound += s->floor[b].slope * detour;
            if (bound >= lowest) continue;
        }
        if (best_at >= 0 && below(s, 100) == 0) continue;
        Van van = s->van[j];
        serve(s, &van, stop, timed);
        int64_t limit = best_at < 0 ? INT64_MAX : lowest + now - arcs;
        if (van.cost >= limit) continue;
        int64_t change = arcs + time_cost(s, van, j + 1, limit, timed) - now;
        if (change < lowest) lowest = change, best_at = j;
    }
    if (best_at < 0) best_at = low;
    int at = best_at + 1;
    memmove(s->path + at + 1, s->path + at, (size_t)(m + 2 - at) * sizeof *s->path);
    s->path[at] = stop;
    s->m++;
    s->suffix_from = (s->suffix_from > at ? s->suffix_from : at) + 1;
    EITHER(drive_from, s, at);
    return at;
}

TWICE(int, insert_best, (Search * s, int stop, int around), s, stop, around)

/* Which stops to take out: strings around a stop and around its neighbours on the map. Marks them with the stamp. */
static int choose_removed(Search *s, int32_t *removed) {
    int all = s->m, most = all / 2 < MOST_REMOVED ? all / 2 : MOST_REMOVED;
    int seed = s->path[somewhere(s, all)], goal = 1 + below(s, most), longest = 1 + below(s, LONGEST_STRING);
    int now = ++s->stamp_now, count = 0;
    const int32_t *neighbours = neighbours_of(s, seed);
    for (int neighbour = -1; neighbour < s->neighbour_count && count < goal; neighbour++) {
        int stop = neighbour < 0 ? seed : neighbours[neighbour];
        if (s->stamp[stop] == now) continue;
        int length = 1 + below(s, longest);
        int r = s->place[stop] - below(s, length);
        if (r < 1) r = 1;
        for (; length > 0 && r <= all && count < goal; r++, length--) {
            if (s->stamp[s->path[r]] == now) continue;
            s->stamp[s->path[r]] = now;
            removed[count++] = s->path[r];
        }
    }
    return count;
}

/* In random order, or (every other time) those first whose windows close first. */
static void arrange(Search *s, int32_t *stops, int count) {
    for (int at = count - 1; at > 0; at--) {
        int other = below(s, at + 1), stop = stops[at];
        stops[at] = stops[other], stops[other] = stop;
    }
    if (below(s, 2)) return;
    for (int at = 1; at < count; at++)
        for (int back = at; back > 0 && s->latest[stops[back]] < s->latest[stops[back - 1]]; back--) {
            int stop = stops[back];
            stops[back] = stops[back - 1], stops[back - 1] = stop;
        }
}

/* Take out a few strings of stops that lie near each other and put each back where it costs least (Christiaens and
 * Vanden Berghe 2020, "Slack Induction by String Removals"). 0 when time ran out half way: then the path lacks stops.
 */
INLINE int ruin_and_recreate(Search *s, const int timed) {
    int32_t removed[MOST_REMOVED];
    int all = s->m, count = choose_removed(s, removed), now = s->stamp_now;
    int first = all + 1, last = 0, kept = 1;
    for (int r = 1; r <= all + 1; r++) {
        int stays = r > all || s->stamp[s->path[r]] != now;
        if (!stays && r < first) first = r;
        if (!stays) last = r;
        if (stays) s->path[kept++] = s->path[r];
    }
    s->m = all - count;
    s->suffix_from = (s->suffix_from > last + 1 ? s->suffix_from : last + 1) - count;
    EITHER(drive_from, s, first);
    int around = s->place[removed[0]] - count / 2; /* Where the first string was. */
    arrange(s, removed, count);
    int untouched = all - last; /* positions at the back */
    for (int at = 0; at < count; at++) {
        if (is_over(s)) return 0;
        s->looks++;
        int position = EITHER(insert_best, s, removed[at], around);
        if (position < first) first = position;
        if (s->m - position < untouched) untouched = s->m - position;
    }
    if (first < s->touched_lo) s->touched_lo = first;
    if (all - untouched > s->touched_hi) s->touched_hi = all - untouched;

    memcpy(s->segment, s->path + 1, (size_t)all * sizeof *s->segment);
    int is_hopeless = s->total - s->kept > s->kept / 2 || !is_allowed(s, 1, all);
    for (int at = 0; at < count && !is_hopeless; at++)
        for (int beside = -1; beside <= 1; beside++) enqueue(s, s->place[removed[at]] + beside);
    if (is_hopeless) s->total = INT64_MAX; /* Not worth a descent; the caller takes it back. */
    return 1;
}

static void forget_touched(Search *s) {
    s->touched_lo = s->n;
    s->touched_hi = 0;
}

static void keep(Search *s) {
    s->kept = s->total;
    if (s->touched_lo <= s->touched_hi)
        memcpy(s->kept_path + s->touched_lo, s->path + s->touched_lo,
               (size_t)(s->touched_hi - s->touched_lo + 1) * sizeof *s->path);
    forget_touched(s);
}

INLINE void take_back(Search *s, const int timed) {
    int lo = s->touched_lo, hi = s->touched_hi;
    while (lo <= hi && s->path[lo] == s->kept_path[lo]) lo++;
    while (hi >= lo && s->path[hi] == s->kept_path[hi]) hi--;
    if (lo <= hi) {
        memcpy(s->segment, s->kept_path + lo, (size_t)(hi - lo + 1) * sizeof *s->segment);
        EITHER(write_segment, s, lo, hi);
    }
    forget_touched(s);
}

INLINE void return_to_best(Search *s, const int timed) {
    memcpy(s->segment, s->best_path + 1, (size_t)s->m * sizeof *s->segment);
    EITHER(write_segment, s, 1, s->m);
    s->touched_lo = 1, s->touched_hi = s->m;
    keep(s);
}

/* From the order given: first near at hand, then further, then segments to anywhere, then once more near. */
INLINE int first_descent(Search *s, const int timed) {
    s->near = FIRST_NEAR;
    for (int stage = 0; stage < 4; stage++) {
        enqueue_all(s);
        if (!EITHER(descend, s)) return 0;
        s->near = NEAR;
        s->is_far = stage == 1;
    }
    return 1;
}

/* Whether a round's outcome is kept: always when it is no worse, else by chance, as in annealing. */
static int is_kept(Search *s, int64_t heat) {
    if (s->total <= s->kept) return 1;
    return s->total < INT64_MAX && s->total - s->kept < (heat * exponential(s)) >> 16;
}

/* Heat falls to nothing in cycles that grow, each begun from the best order so far: no budget has to be known. */
INLINE int64_t search(Search *s, const int timed) {
    s->suffix_from = s->m + 2;
    s->expected_last = s->van[s->m].begins;
    s->best = s->total;
    memcpy(s->best_path, s->path, (size_t)s->n * sizeof *s->path);
    memcpy(s->kept_path, s->path, (size_t)s->n * sizeof *s->path);
    forget_touched(s);
    if (s->m < 2) return 0;
    s->neighbour_count = s->m - 1 < NEIGHBOURS ? s->m - 1 : NEIGHBOURS;
    memset(s->neighbours, 0, (size_t)s->n * NEIGHBOURS * sizeof *s->neighbours);
    int goes_on = first_descent(s, timed);
    remember_best(s);
    keep(s);
    int64_t rounds = 0, cycle = 50 + 2 * (int64_t)s->m, in_cycle = 0;
    int64_t hottest = s->best / (2 * (s->m + 1));
    if (hottest > (int64_t)1 << 40) hottest = (int64_t)1 << 40;
    while (goes_on && !is_over(s)) {
        s->looks++; /* A round in which nothing may be disturbed counts too, or it would never end. */
        s->is_far = below(s, 4) == 0;
        /* Putting stops back asks the functions of the whole route: cheap only where they are cheap to build. */
        if (below(s, timed ? 2 : 20) == 0)
            disturb(s, timed);
        else if (!ruin_and_recreate(s, timed))
            break;
        goes_on = EITHER(descend, s);
        remember_best(s);
        rounds++;
        if (is_kept(s, hottest * (cycle - in_cycle) / cycle))
            keep(s);
        else
            take_back(s, timed);
        if (++in_cycle >= cycle) {
            in_cycle = 0;
            cycle += cycle / 2;
            return_to_best(s, timed);
        }
    }
    return rounds;
}

/* ---- From the caller's problem to a task ---- */

typedef struct {
    char *memory;
    size_t used;
} Arena;

/* Hand out memory; with memory == NULL only count it. */
static void *take(Arena *arena, size_t count, size_t size) {
    void *taken = arena->memory ? arena->memory + arena->used : NULL;
    arena->used += (count * size + 63) & ~(size_t)63;
    return taken;
}

static void lay_out(Search *s, Arena *arena, int pairs) {
    size_t n = (size_t)s->n, states = s->timed ? 2 : 1, slices = s->timed ? (size_t)s->slices : 1;
    s->leg = take(arena, n * n, sizeof *s->leg);
    s->leg_into = take(arena, n * n, sizeof *s->leg_into);
    s->travel = take(arena, s->timed ? slices * n * n : 0, sizeof *s->travel);
    s->least = take(arena, s->timed ? n * n : 0, sizeof *s->least);
    s->slice_ends = take(arena, slices, sizeof *s->slice_ends);
    s->service = take(arena, n, sizeof *s->service);
    s->earliest = take(arena, n, sizeof *s->earliest);
    s->latest = take(arena, n, sizeof *s->latest);
    s->weight = take(arena, n, sizeof *s->weight);
    s->load_change = take(arena, n, sizeof *s->load_change);
    s->before_start = take(arena, n + 1, sizeof *s->before_start);
    s->before = take(arena, (size_t)pairs + 1, sizeof *s->before);
    s->path = take(arena, n, sizeof *s->path);
    s->place = take(arena, n, sizeof *s->place);
    s->van = take(arena, n, sizeof *s->van);
    s->arcs = take(arena, n, sizeof *s->arcs);
    s->reversed = take(arena, n, sizeof *s->reversed);
    s->arrives = take(arena, n, sizeof *s->arrives);
    s->waits = take(arena, n, sizeof *s->waits);
    s->backward = take(arena, n, sizeof *s->backward);
    s->late_times = take(arena, n, sizeof *s->late_times);
    s->floor = take(arena, n, sizeof *s->floor);
    s->late_weight = take(arena, n, sizeof *s->late_weight);
    s->best_path = take(arena, n, sizeof *s->best_path);
    s->kept_path = take(arena, n, sizeof *s->kept_path);
    s->segment = take(arena, n, sizeof *s->segment);
    s->queue = take(arena, n, sizeof *s->queue);
    s->stamp = take(arena, n, sizeof *s->stamp);
    s->neighbours = take(arena, n * NEIGHBOURS, sizeof *s->neighbours);
    s->is_queued = take(arena, n, sizeof *s->is_queued);
    s->count = take(arena, states * (n + 1), sizeof *s->count);
    s->stride = s->timed ? MOST_PIECES : s->n + 6; /* Plain: a hinge per node, one for the shift's end, two unknown, the first. */
    s->scratch[0] = take(arena, s->timed ? (size_t)s->stride : 0, sizeof(Piece));
    s->scratch[1] = take(arena, s->timed ? (size_t)s->stride : 0, sizeof(Piece));
    s->pieces = take(arena, states * (n + 1) * (size_t)s->stride, sizeof *s->pieces);
}

static int32_t clamp(int64_t instant, int32_t most) {
    return instant < 0 ? 0 : instant > most ? most : (int32_t)instant;
}

/* The caller's node behind each of ours; -1 is the open end. */
static int outer(const ww_problem *p, int node, int m) {
    if (node == m + 1) return p->end;
    int index = p->frozen + node - 1;
    return index < 0 ? p->start : p->order[index];
}

static const int32_t HORIZON = INT32_MAX / 2 + 1; /* routes.LONGEST_DAY: no instant of a route lies beyond */

/* The slices a van can meet: all that end after it leaves, and begin before the longest day ends. */
static int first_slice(const ww_problem *p) {
    int slice = 0;
    while (slice < p->slices - 1 && p->slice_ends[slice] <= p->leave) slice++;
    return slice;
}

static int last_slice(const ww_problem *p) {
    int slice = first_slice(p);
    while (slice < p->slices - 1 && p->slice_ends[slice] - p->leave < HORIZON) slice++;
    return slice;
}

/* Our stops are numbered in the order now driven. */
static int arc_is_new(int a, int b) { return b != a + 1; }

static void fill_matrices(Search *s, const ww_problem *p) {
    int n = s->n, m = s->m, first = first_slice(p);
    int32_t *outers = s->queue; /* Not in use before the search. */
    for (int node = 0; node < n; node++) outers[node] = outer(p, node, m);
    size_t outer_side = (size_t)p->nodes * (size_t)p->nodes;
    for (int slice = 0; slice + 1 < s->slices; slice++)
        s->slice_ends[slice] = (int32_t)(p->slice_ends[first + slice] - p->leave);
    for (int a = 0; a < n; a++)
        for (int b = 0; b < n; b++) {
            int from = outers[a], to = outers[b];
            int is_drive = a <= m && to >= 0;
            int32_t least = 0;
            for (int slice = 0; slice < s->slices; slice++) {
                int32_t travel =
                    is_drive
                        ? p->travel[(size_t)(first + slice) * outer_side + (size_t)from * (size_t)p->nodes + (size_t)to]
                        : 0;
                if (slice == 0 || travel < least) least = travel;
                if (s->timed) s->travel[(slice * n + a) * n + b] = travel;
            }
            if (s->timed) s->least[a * n + b] = to < 0 ? -1 : least;
            Leg leg = {least + (is_drive && arc_is_new(a, b) ? (int32_t)p->change_cost : 0), least + s->service[a]};
            s->leg[a * n + b] = s->leg_into[b * n + a] = leg;
        }
}

static void fill_nodes(Search *s, const ww_problem *p) {
    int m = s->m;
    for (int node = 0; node <= m + 1; node++) {
        int from = outer(p, node, m);
        s->service[node] = from >= 0 && node <= m && (node > 0 || p->frozen > 0) ? (int32_t)p->service[from] : 0;
        s->earliest[node] = s->latest[node] = 0;
        s->weight[node] = s->load_change[node] = 0;
        if (from < 0 || node == 0) continue;
        int64_t opens = p->earliest[from] > p->leave ? p->earliest[from] - p->leave : 0;
        int64_t closes = p->latest[from] >= p->leave + HORIZON ? HORIZON : p->latest[from] - p->leave;
        s->earliest[node] = (int32_t)opens;
        /* Lateness that no order avoids is a constant; what is left never closes before it opens. */
        if (closes < opens) s->constant += (opens - closes) * p->weight[from];
        s->latest[node] = (int32_t)(closes < opens ? opens : closes);
        s->weight[node] = p->weight[from];
        s->load_change[node] = node <= m ? p->load_change[from] : 0;
    }
}

static void fill_precedence(Search *s, const ww_problem *p, int32_t *inner) {
    for (int node = 0; node < p->nodes; node++) inner[node] = 0;
    for (int node = 1; node <= s->m; node++) inner[outer(p, node, s->m)] = node;
    for (int node = 0; node <= s->n; node++) s->before_start[node] = 0;
    for (int pair = 0; pair < p->pairs; pair++)
        if (inner[p->before[pair]] && inner[p->after[pair]]) s->before_start[inner[p->after[pair]] + 1]++;
    for (int node = 0; node < s->n; node++) s->before_start[node + 1] += s->before_start[node];
    s->is_ordered = s->before_start[s->n] > 0;
    for (int pair = 0; pair < p->pairs; pair++) {
        int before = inner[p->before[pair]], after = inner[p->after[pair]];
        if (!before || !after) continue;
        /* Filled from the back of each bucket; the stamp array counts, and is cleared again by the caller. */
        s->before[s->before_start[after + 1] - 1 - s->stamp[after]++] = before;
    }
}

static void fill_load(Search *s, const ww_problem *p) {
    s->load_now = p->load_now;
    s->capacity = p->capacity;
    for (int at = 0; at < p->frozen; at++) s->load_now += p->load_change[p->order[at]];
    int64_t highest = s->load_now;
    for (int node = 1; node <= s->m; node++) highest += s->load_change[node] > 0 ? s->load_change[node] : 0;
    s->is_loaded = p->capacity >= 0 && highest > p->capacity;
}

/* Drive the frozen head by the plain rules of routes.py; leaves the van at its last stop. */
static Van drive_head(Search *s, const ww_problem *p) {
    Van van = {0, 0, !s->has_break, 0};
    int here = p->start, first = first_slice(p);
    size_t side = (size_t)p->nodes * (size_t)p->nodes;
    int64_t departure = 0;
    for (int at = 0; at < p->frozen; at++) {
        int there = p->order[at];
        if (!van.rested && departure >= s->break_earliest) {
            van.cost += over((int32_t)departure, s->break_latest, s->break_weight);
            departure += s->break_duration;
            van.rested = 1;
        }
        int slice = first;
        const int32_t *travel = p->travel + (size_t)here * (size_t)p->nodes + (size_t)there;
        while (slice < p->slices - 1 && p->slice_ends[slice] - p->leave <= departure) slice++;
        int64_t arrives = departure + travel[(size_t)slice * side];
        for (int later = slice + 1; later < p->slices && p->slice_ends[later - 1] - p->leave < arrives; later++) {
            int64_t waited = p->slice_ends[later - 1] - p->leave + travel[(size_t)later * side];
            if (waited < arrives) arrives = waited;
        }
        van.cost += arrives - departure;
        int64_t opens = p->earliest[there] - p->leave, begins = arrives > opens ? arrives : opens;
        if (!van.rested) {
            int64_t pause = arrives > s->break_earliest ? arrives : s->break_earliest;
            if (pause + s->break_duration <= opens) {
                van.cost += over((int32_t)pause, s->break_latest, s->break_weight);
                van.rested = 1;
            }
        }
        if (begins > p->latest[there] - p->leave)
            van.cost += (begins - (p->latest[there] - p->leave)) * p->weight[there];
        van.begins = (int32_t)begins;
        departure = begins + p->service[there];
        here = there;
    }
    return van;
}

static void fill_day(Search *s, const ww_problem *p) {
    s->shift_end = HORIZON;
    s->shift_weight = p->shift_weight;
    if (p->shift_end < p->leave) s->constant += (p->leave - p->shift_end) * p->shift_weight;
    if (p->shift_end < p->leave + HORIZON) s->shift_end = clamp(p->shift_end - p->leave, HORIZON);
    s->has_break = p->has_break;
    s->break_earliest = s->break_latest = HORIZON;
    if (!p->has_break) return;
    s->break_duration = (int32_t)p->break_duration;
    s->break_weight = p->break_weight;
    if (p->break_latest < p->leave) s->constant += (p->leave - p->break_latest) * p->break_weight;
    if (p->break_earliest < p->leave + HORIZON) s->break_earliest = clamp(p->break_earliest - p->leave, HORIZON);
    if (p->break_latest < p->leave + HORIZON) s->break_latest = clamp(p->break_latest - p->leave, HORIZON);
}

/* Improve p->order until `deadline_ns` of `clock` (0: none) or `most_looks`; the answer's order goes to `order` and is
 * never worse. Returns 0, or 1 when there is no memory. */
EXPORT int ww_resequence(const ww_problem *p, int64_t deadline_ns, int32_t use_cpu_clock, int64_t most_looks,
                         uint64_t seed, int32_t *order, ww_answer *answer) {
    Search search_state, *s = &search_state;
    memset(s, 0, sizeof *s);
    s->m = p->stops - p->frozen;
    s->n = s->m + 2;
    s->slices = last_slice(p) - first_slice(p) + 1;
    s->timed = s->slices > 1 || p->has_break;
    s->deadline_ns = deadline_ns;
    s->clock = use_cpu_clock ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
    s->most_looks = most_looks;
    s->random = seed * 0x9E3779B97F4A7C15ull + 88172645463325252ull;
    if (s->random == 0) s->random = 1;

    Arena arena = {NULL, 0};
    lay_out(s, &arena, p->pairs);
    int32_t *inner = take(&arena, (size_t)p->nodes, sizeof *inner);
    arena.memory = malloc(arena.used);
    if (!arena.memory) return 1;
    arena.used = 0;
    lay_out(s, &arena, p->pairs);
    inner = take(&arena, (size_t)p->nodes, sizeof *inner);

    fill_day(s, p);
    fill_nodes(s, p);
    fill_matrices(s, p);
    memset(s->stamp, 0, (size_t)s->n * sizeof *s->stamp);
    fill_precedence(s, p, inner);
    memset(s->stamp, 0, (size_t)s->n * sizeof *s->stamp);
    memset(s->is_queued, 0, (size_t)s->n);
    fill_load(s, p);
    for (int r = 0; r < s->n; r++) s->path[r] = r;
    s->van[0] = drive_head(s, p);
    s->arcs[0] = s->reversed[0] = s->waits[0] = s->late_weight[0] = s->backward[0] = s->late_times[0] = 0;
    s->place[0] = 0;

    int timed = s->timed;
    EITHER(drive_from, s, 1);
    int32_t lasts = s->van[s->m + 1].begins - s->van[0].begins;
    s->breadth = lasts / (s->m + 1) * (timed ? TIMED_BREADTH : BREADTH) + 1 + (s->has_break ? s->break_duration : 0);
    answer->given_total = s->total + s->constant;
    answer->rounds = timed ? search(s, 1) : search(s, 0);
    answer->total = s->best + s->constant;
    answer->looks = s->looks;
    for (int at = 0; at < p->frozen; at++) order[at] = p->order[at];
    for (int r = 1; r <= s->n - 2; r++) order[p->frozen + r - 1] = p->order[p->frozen + s->best_path[r] - 1];
    free(arena.memory);
    return 0;
}
