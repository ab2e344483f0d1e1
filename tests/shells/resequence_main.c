/* Run the kernel without Python: problems come as whole numbers on standard input, orders leave on standard output.
 *
 * Compiled for another architecture and run under an emulator, this shows that a seed and a number of looks give the
 * same order there. Each problem is followed by its looks and its seed; a line with the order answers it.
 */
#include <stdio.h>

#include "../../shared/_resequence.c"

static int64_t number(void) {
    long long read = 0;
    if (scanf("%lld", &read) != 1) exit(0);
    return read;
}

static int32_t *narrow(size_t count) {
    int32_t *column = malloc((count + 1) * sizeof *column);
    for (size_t at = 0; at < count; at++) column[at] = (int32_t)number();
    return column;
}

static int64_t *wide(size_t count) {
    int64_t *column = malloc((count + 1) * sizeof *column);
    for (size_t at = 0; at < count; at++) column[at] = number();
    return column;
}

int main(void) {
    for (;;) {
        ww_problem p;
        p.nodes = (int32_t)number(), p.slices = (int32_t)number(), p.stops = (int32_t)number();
        p.frozen = (int32_t)number(), p.start = (int32_t)number(), p.end = (int32_t)number();
        size_t n = (size_t)p.nodes, slices = (size_t)p.slices, stops = (size_t)p.stops;
        p.travel = narrow(slices * n * n);
        p.slice_ends = wide(slices - 1);
        p.service = wide(n), p.earliest = wide(n), p.latest = wide(n), p.weight = wide(n), p.load_change = wide(n);
        p.order = narrow(stops);
        p.leave = number(), p.change_cost = number(), p.load_now = number(), p.capacity = number();
        p.pairs = (int32_t)number();
        p.before = narrow((size_t)p.pairs), p.after = narrow((size_t)p.pairs);
        p.has_break = (int32_t)number();
        p.break_duration = number(), p.break_earliest = number(), p.break_latest = number(), p.break_weight = number();
        p.shift_end = number(), p.shift_weight = number();
        int64_t looks = number(), seed = number();
        int32_t *order = malloc((stops + 1) * sizeof *order);
        ww_answer answer;
        if (ww_resequence(&p, 0, 0, looks, (uint64_t)seed, order, &answer) != 0) return 1;
        for (size_t at = 0; at < stops; at++) printf("%d%c", order[at], at + 1 < stops ? ' ' : '\n');
        fflush(stdout);
    }
}
