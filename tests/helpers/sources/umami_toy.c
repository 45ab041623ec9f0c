/* q qbar -> l+ l- through a photon, times (1 + alpha_s), as a UMAMI matrix element that can be made to misbehave.

   Flavour 0: up-type quarks, 1: down-type ones; legs q, qbar, l+, l-. Colour 0 is the one flow; helicity 0: all left-handed. */
#include <math.h>
#include <stdbool.h>
#include <stddef.h>

#ifndef DEVICE
#define DEVICE 0
#endif
#ifndef PARTICLES
#define PARTICLES 4
#endif
#ifndef REQUIRED
#define REQUIRED 0
#endif
#ifndef BEGIN
#define BEGIN 0
#endif
#ifndef KEYS
#define KEYS 5
#endif
#ifndef STATUS
#define STATUS 0
#endif
#ifndef MASS
#define MASS 0.0
#endif
#ifndef FACTOR
#define FACTOR 1.0
#endif

int umami_get_meta(int key, void *result) {
    int const numbers[] = {DEVICE, PARTICLES, 1, 2, 1};
    if (key == 5)
        for (int leg = 0; leg < PARTICLES; ++leg) ((double *)result)[leg] = leg == 3 ? MASS : 0.0;
    else if (key >= 0 && key < 5)
        *(int *)result = numbers[key];
    else
        return 6;
    return 0;
}

static bool const supported[] = {true, true, true, true, true};
static bool const made[] = {true, false, true, true};

int umami_supported_inputs(bool const **list, int *count) { return *list = supported, *count = KEYS, 0; }
int umami_required_inputs(bool const **list, int *count) {
    static bool required[20];
    required[REQUIRED] = true;
    return *list = required, *count = 20, 0;
}
int umami_supported_outputs(bool const **list, int *count) { return *list = made, *count = 4, 0; }

int umami_initialize(void **handle, char const *card) {
    static int nothing;
    (void)card;
    *handle = &nothing;
    return BEGIN;
}

int umami_free(void *handle) {
    (void)handle;
    return 0;
}

static double product(double const *p, size_t event, size_t stride, int a, int b) {
    double sum = 0.0;
    for (int c = 0; c < 4; ++c) sum += (c ? -1.0 : 1.0) * p[event + stride * (a + 4 * c)] * p[event + stride * (b + 4 * c)];
    return sum;
}

int umami_matrix_element(void *handle, size_t count, size_t stride, size_t offset, size_t inputs, int const *input_keys,
                         void const *const *input, size_t outputs, int const *output_keys, void *const *output) {
    double const *p = NULL, *alpha_s = NULL, *random = NULL;
    int const *flavour = NULL;
    (void)handle;
    for (size_t i = 0; i < inputs; ++i) {
        if (input_keys[i] == 0) p = input[i];
        if (input_keys[i] == 1) alpha_s = input[i];
        if (input_keys[i] == 2) flavour = input[i];
        if (input_keys[i] == 4) random = input[i];
    }
    for (size_t event = offset; event < offset + count; ++event) {
        double const s = 2.0 * product(p, event, stride, 0, 1), t = -2.0 * product(p, event, stride, 0, 2);
        double const u = -2.0 * product(p, event, stride, 0, 3), e2 = 4.0 * acos(-1.0) / 137.0;
        double const charge = flavour[event] == 0 ? 2.0 / 3.0 : -1.0 / 3.0;
        double const value = 2.0 * e2 * e2 * charge * charge * (t * t + 2.0 * u * u) / (3.0 * s * s);
        for (size_t i = 0; i < outputs; ++i) {
            if (output_keys[i] == 0) ((double *)output[i])[event] = FACTOR * (1.0 + alpha_s[event]) * value;
            if (output_keys[i] == 2) ((int *)output[i])[event] = 0;
            if (output_keys[i] == 3) ((int *)output[i])[event] = random[event] < 0.25 ? 0 : 1;
        }
    }
    return STATUS;
}
