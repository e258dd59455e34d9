/* One decode step of a decoder layer with root-mean-square norms, rotary angles and a gated SiLU feed-forward, in float32:
one new token of each row. Only the rows that run the layer are computed; keys and values may be made for others too, and
for past tokens that lack them. A row's result is the same bits whatever rows stand beside it, and however many threads
there are. `dlbench.engine.kernels.native_layer` fills the structures. */

#include <math.h>
#include <omp.h>

#include "few_rows.c"

typedef int ints __attribute__((vector_size(4 * LANES)));

struct layer {
    long width, heads, groups, head, rotated, inner; /* groups: heads of keys and of values */
    float scale, eps, eps_mlp;
    const float *norm, *norm_mlp;
    const float *qkv, *qkv_bias, *out, *out_bias, *up, *up_bias, *down, *down_bias;
};

struct step {
    const float *state; /* [alive, width] */
    float *result;      /* [alive, width] */
    long alive, runs, made, past;
    const long *order;  /* [made] rows of `state`: those that run, then those of which keys and values are made only */
    const long *slots;  /* [made + past] slots of the cache, those of past tokens last */
    const long *columns; /* [past] */
    const long *starts; /* by slot, the first column that its row fills */
    const float *past_state; /* [past, width] */
    const float *cos, *sin, *past_cos, *past_sin;
    long angles; /* elements from the angles of one row of `state` to those of the next; 0 where all have the same */
    float *cache; /* [slots, keys and values, columns, head] */
    long length, first, now; /* columns of the cache; the first one that may be attended to; the new tokens' */
    float *scratch;
    int threads;
};

static inline vec spread(float x)
{
    return x - (vec){0};
}

static inline void store(float *to, vec x)
{
    memcpy(to, &x, sizeof x);
}

/* e^x with a relative error of 2e-7; for x below -87 as for -87. */
static inline vec exponential(vec x)
{
    const vec least = spread(-87.0f), most = spread(88.0f), magic = spread(12582912.0f);
    x = (vec)(((ints)x & (x > least)) | ((ints)least & ~(x > least)));
    x = (vec)(((ints)x & (x < most)) | ((ints)most & ~(x < most)));
    const vec shifted = x * 1.44269504f + magic, n = shifted - magic;
    const vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    vec sum = spread(1.9875691500e-4f);
    sum = sum * r + 1.3981999507e-3f;
    sum = sum * r + 8.3334519073e-3f;
    sum = sum * r + 4.1665795894e-2f;
    sum = sum * r + 1.6666665459e-1f;
    sum = sum * r + 5.0000001201e-1f;
    sum = sum * r * r + r + 1.0f;
    return (vec)((ints)sum + (((ints)shifted - (ints)magic) << 23));
}

static inline float dot(const float *a, const float *b, long count)
{
    vec even = {0}, odd = {0};
    long i = 0;
    for (; i + 2 * LANES <= count; i += 2 * LANES) {
        even += load(a + i) * load(b + i);
        odd += load(a + i + LANES) * load(b + i + LANES);
    }
    if (i < count)
        even += load(a + i) * load(b + i);
    return total(even + odd);
}

static void normed(float *to, const float *x, const float *weight, long width, float eps)
{
    const vec factor = spread(1.0f / sqrtf(dot(x, x, width) / (float)width + eps));
    for (long i = 0; i < width; i += LANES)
        store(to + i, load(x + i) * factor * load(weight + i));
}

static void rotate(float *x, const float *cos, const float *sin, long rotated, float *spare)
{
    memcpy(spare, x, rotated * sizeof *x);
    for (long i = 0; i < rotated; i++)
        x[i] = spare[i] * cos[i] + spare[i < rotated / 2 ? i + rotated / 2 : i - rotated / 2] * sin[i];
}

/* What the queries of one row that share keys find: `queries` [count, head] are overwritten by it. */
static void attend(float *queries, const float *keys, const float *values, long count, long head, long columns,
                   float scale, float *weights)
{
    for (long q = 0; q < count; q++) {
        float *x = queries + q * head, largest = -INFINITY;
        for (long c = 0; c < columns; c++) {
            weights[c] = scale * dot(x, keys + c * head, head);
            largest = weights[c] > largest ? weights[c] : largest;
        }
        for (long c = columns; c % LANES; c++)
            weights[c] = -INFINITY;
        vec sum = {0};
        for (long c = 0; c < columns; c += LANES) {
            const vec weight = exponential(load(weights + c) - largest);
            store(weights + c, weight);
            if (columns - c >= LANES)
                sum += weight;
            else
                for (long i = 0; i < columns - c; i++)
                    sum[i] += weight[i];
        }
        const float share = 1.0f / total(sum);
        for (long i = 0; i < head; i += LANES) {
            vec even = {0}, odd = {0};
            long c = 0;
            for (; c + 1 < columns; c += 2) {
                even += weights[c] * load(values + c * head + i);
                odd += weights[c + 1] * load(values + (c + 1) * head + i);
            }
            if (c < columns)
                even += weights[c] * load(values + c * head + i);
            store(x + i, (even + odd) * share);
        }
    }
}

static long share(long count, int thread, int threads)
{
    return thread == threads ? count : count / 12 * thread / threads * 12; /* whole tiles */
}

static void part_of(const float *x, const float *weight, const float *bias, float *out, long rows, long outputs,
                    long inputs, int thread, int threads)
{
    const struct product p = {x, weight, bias, 0, out, rows, outputs, inputs};
    if (rows)
        outputs_of(&p, share(outputs, thread, threads), share(outputs, thread + 1, threads));
}

/* Floats of scratch memory that a step needs. */
long layer_scratch(const struct layer *l, const struct step *s)
{
    const long rows = s->made + s->past;
    return rows * (l->width + 2 * l->groups * l->head) +
           s->runs * (l->heads * l->head + 2 * l->width + 3 * l->inner) +
           s->threads * (s->length + LANES + l->rotated);
}

void layer_step(const struct layer *l, const struct step *s)
{
    const long width = l->width, head = l->head, groups = l->groups, each = l->heads / groups, inner = l->inner;
    const long runs = s->runs, rows = s->made + s->past, wide = l->heads * head, both = 2 * groups * head;
    float *const x = s->scratch, *const keys = x + rows * width, *const queries = keys + rows * both;
    float *const middle = queries + runs * wide, *const last = middle + runs * width;
    float *const gates = last + runs * width, *const active = gates + runs * 2 * inner;
    float *const own = active + runs * inner;
#pragma omp parallel num_threads(s->threads) if (s->threads > 1)
    {
        const int thread = omp_get_thread_num(), threads = omp_get_num_threads();
        float *const weights = own + thread * (s->length + LANES + l->rotated);
        float *const spare = weights + s->length + LANES;

        for (long j = thread; j < rows; j += threads)
            normed(x + j * width, j < s->made ? s->state + s->order[j] * width : s->past_state + (j - s->made) * width,
                   l->norm, width, l->eps);
#pragma omp barrier
        part_of(x, l->qkv, l->qkv_bias, queries, runs, wide, width, thread, threads);
        part_of(x, l->qkv + wide * width, l->qkv_bias ? l->qkv_bias + wide : 0, keys, rows, both, width, thread, threads);
#pragma omp barrier
        for (long item = thread; item < rows * groups; item += threads) {
            const long j = item / groups, g = item % groups, old = j - s->made;
            const float *cos = old < 0 ? s->cos + s->order[j] * s->angles : s->past_cos + old * l->rotated;
            const float *sin = old < 0 ? s->sin + s->order[j] * s->angles : s->past_sin + old * l->rotated;
            float *key = keys + j * both + g * head, *value = key + groups * head;
            const long column = old < 0 ? s->now : s->columns[old];
            float *to = s->cache + ((s->slots[j] * 2 * groups + g) * s->length + column) * head;
            rotate(key, cos, sin, l->rotated, spare);
            memcpy(to, key, head * sizeof *to);
            memcpy(to + groups * s->length * head, value, head * sizeof *to);
            if (j < runs)
                for (long q = 0; q < each; q++)
                    rotate(queries + j * wide + (g * each + q) * head, cos, sin, l->rotated, spare);
        }
#pragma omp barrier
        for (long item = thread; item < runs * groups; item += threads) {
            const long j = item / groups, g = item % groups, slot = s->slots[j];
            const long first = s->starts[slot] > s->first ? s->starts[slot] : s->first;
            const float *k = s->cache + ((slot * 2 * groups + g) * s->length + first) * head;
            attend(queries + j * wide + g * each * head, k, k + groups * s->length * head, each, head,
                   s->now + 1 - first, l->scale, weights);
        }
#pragma omp barrier
        part_of(queries, l->out, l->out_bias, middle, runs, width, wide, thread, threads);
#pragma omp barrier
        for (long j = thread; j < runs; j += threads) {
            const float *state = s->state + s->order[j] * width;
            for (long i = 0; i < width; i += LANES)
                store(middle + j * width + i, load(middle + j * width + i) + load(state + i));
            normed(x + j * width, middle + j * width, l->norm_mlp, width, l->eps_mlp);
        }
#pragma omp barrier
        part_of(x, l->up, l->up_bias, gates, runs, 2 * inner, width, thread, threads);
#pragma omp barrier
        for (long j = thread; j < runs; j += threads)
            for (long i = 0; i < inner; i += LANES) {
                const vec gate = load(gates + j * 2 * inner + i), up = load(gates + j * 2 * inner + inner + i);
                store(active + j * inner + i, gate / (exponential(-gate) + 1.0f) * up);
            }
#pragma omp barrier
        part_of(active, l->down, l->down_bias, last, runs, width, inner, thread, threads);
#pragma omp barrier
        for (long j = thread; j < runs; j += threads)
            for (long i = 0; i < width; i += LANES)
                store(s->result + s->order[j] * width + i, load(middle + j * width + i) + load(last + j * width + i));
    }
}
