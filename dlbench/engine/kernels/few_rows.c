/* Products of few rows with a weight, in float32: out = x @ weight.T (+ bias) (+ onto).

The weight is read from memory once, in its own order, by threads that each take consecutive outputs. A result depends
on its own row and output alone: it is the same bits whatever rows stand beside it, and however many threads there are. */

#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif

typedef float vec __attribute__((vector_size(4 * LANES)));

static inline vec load(const float *from)
{
    vec x;
    memcpy(&x, from, sizeof x);
    return x;
}

static inline float total(vec x)
{
    float sum[LANES];
    memcpy(sum, &x, sizeof x);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++)
            sum[i] += sum[i + half];
    return sum[0];
}

struct product {
    const float *x, *weight, *bias, *onto;
    float *out;
    long rows, outputs, inputs;
};

/* R rows, from `row` on, by N outputs, from `output` on; the loops over constants are unrolled into registers. `ahead`
is a row of the weight that is needed soon: it is brought into the cache meanwhile. */
#define TILE(R, N)                                                                                       \
    static void tile_##R##_##N(const struct product *p, long row, long output, const float *ahead)       \
    {                                                                                                    \
        const long k = p->inputs, whole = k - k % LANES;                                                 \
        const float *x = p->x + row * k, *w = p->weight + output * k;                                    \
        vec sums[R][N] = {{{0}}};                                                                        \
        for (long i = 0; i < whole; i += LANES) {                                                        \
            vec of[N];                                                                                   \
            if (i % 16 == 0)                                                                             \
                __builtin_prefetch(ahead + i);                                                           \
            _Pragma("GCC unroll 8") for (int n = 0; n < N; n++) of[n] = load(w + n * k + i);             \
            _Pragma("GCC unroll 8") for (int r = 0; r < R; r++)                                          \
            {                                                                                            \
                vec left = load(x + r * k + i);                                                          \
                _Pragma("GCC unroll 8") for (int n = 0; n < N; n++) sums[r][n] += left * of[n];          \
            }                                                                                            \
        }                                                                                                \
        for (int r = 0; r < R; r++)                                                                      \
            for (int n = 0; n < N; n++) {                                                                \
                float sum = total(sums[r][n]);                                                           \
                for (long i = whole; i < k; i++)                                                         \
                    sum += x[r * k + i] * w[n * k + i];                                                  \
                const long at = (row + r) * p->outputs + output + n;                                     \
                if (p->bias)                                                                             \
                    sum += p->bias[output + n];                                                          \
                p->out[at] = p->onto ? p->onto[at] + sum : sum;                                          \
            }                                                                                            \
    }

TILE(1, 1)
TILE(2, 1)
TILE(3, 1)
TILE(4, 1)
TILE(1, 6)
TILE(2, 6)
TILE(1, 3)
TILE(2, 3)
TILE(3, 3)
TILE(4, 3)

typedef void (*tile)(const struct product *, long, long, const float *);
static const tile ONE[] = {0, tile_1_1, tile_2_1, tile_3_1, tile_4_1};
static const tile LOW[] = {0, tile_1_6, tile_2_6};                      /* reads many streams: few rows wait for memory */
static const tile HIGH[] = {0, tile_1_3, tile_2_3, tile_3_3, tile_4_3}; /* loads less for each product */

static void outputs_of(const struct product *p, long first, long end)
{
    const int few = p->rows < 6;
    const long most = few ? 2 : 4, wide = few ? 6 : 3;
    const tile *tiles = few ? LOW : HIGH;
    while (first < end) {
        const long n = end - first >= wide ? wide : 1;
        for (long row = 0; row < p->rows; row += most) {
            const long r = p->rows - row < most ? p->rows - row : most;
            const long next = first + n + row / most;
            (n == 1 ? ONE : tiles)[r](p, row, first, p->weight + (next < p->outputs ? next : first) * p->inputs);
        }
        first += n;
    }
}

void product(const float *x, const float *weight, const float *bias, const float *onto, float *out, long rows,
             long outputs, long inputs, int threads)
{
    const struct product p = {x, weight, bias, onto, out, rows, outputs, inputs};
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int part = 0; part < threads; part++)
        outputs_of(&p, outputs * part / threads, outputs * (part + 1) / threads);
}
