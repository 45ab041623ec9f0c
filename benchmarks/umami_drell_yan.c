/* q qbar -> e- e+ through photon and Z as a UMAMI matrix element, for `madspace_events.py`.

   Flavour 0: up-type quarks, 1: down-type. Momenta are component by component: p[event + stride * (leg + 4 * component)],
   legs q, qbar, e-, e+, components E, px, py, pz. Averaged over spins and colours. */
#include <math.h>
#include <stdbool.h>
#include <stddef.h>

enum { LEGS = 4, INPUTS = 15, OUTPUTS = 11, MASSES = 5, SUCCESS = 0, NOT_IMPLEMENTED = 2, NO_META = 6 };
enum { MOMENTA = 0, FLAVOUR = 2, VALUE = 0, DIAGRAM = 1, LAST_INDEX = 4 };

static double const mass = 91.1876, width = 2.495514921, sine2 = 0.2315, alpha = 0.00781751;

int umami_get_meta(int key, void *result) {
    static int const numbers[] = {0, LEGS, 1, 1, 1}; /* CPU, legs, diagrams, helicities, colours */
    if (key == MASSES)
        for (int leg = 0; leg < LEGS; ++leg) ((double *)result)[leg] = 0.0;
    else if (key >= 0 && key < MASSES)
        *(int *)result = numbers[key];
    else
        return NO_META;
    return SUCCESS;
}

static bool const supported[INPUTS] = {true, true, true, true, true, true};
static bool const required[INPUTS] = {true};
static bool const made[OUTPUTS] = {true, true, true, true, true};

int umami_supported_inputs(bool const **list, size_t *count) { return *list = supported, *count = INPUTS, SUCCESS; }
int umami_required_inputs(bool const **list, size_t *count) { return *list = required, *count = INPUTS, SUCCESS; }
int umami_supported_outputs(bool const **list, size_t *count) { return *list = made, *count = OUTPUTS, SUCCESS; }

int umami_initialize(void **handle, char const *card) {
    static int nothing;
    (void)card;
    *handle = &nothing;
    return SUCCESS;
}

int umami_set_parameter(void *handle, char const *name, double re, double im) {
    (void)handle, (void)name, (void)re, (void)im;
    return NOT_IMPLEMENTED;
}

int umami_get_parameter(void *handle, char const *name, double *re, double *im) {
    (void)handle, (void)name, (void)re, (void)im;
    return NOT_IMPLEMENTED;
}

int umami_free(void *handle) {
    (void)handle;
    return SUCCESS;
}

static double squared(double s, double t, bool up) {
    double const charge = up ? 2.0 / 3.0 : -1.0 / 3.0, isospin = up ? 0.5 : -0.5, u = -s - t;
    double const norm = 1.0 / sqrt(sine2 * (1.0 - sine2)), e2 = 4.0 * M_PI * alpha;
    double const quark[2] = {(isospin - charge * sine2) * norm, -charge * sine2 * norm};
    double const lepton[2] = {(sine2 - 0.5) * norm, sine2 * norm};
    double const off = s - mass * mass, damped = mass * width, size = off * off + damped * damped;
    double sum = 0.0;
    for (int a = 0; a < 2; ++a)
        for (int b = 0; b < 2; ++b) {
            double const both = quark[a] * lepton[b], re = both * off / size - charge / s, im = -both * damped / size;
            sum += 4.0 * (re * re + im * im) * (a == b ? u * u : t * t);
        }
    return e2 * e2 * sum / 12.0;
}

int umami_matrix_element(void *handle, size_t count, size_t stride, size_t offset, size_t inputs, int const *input_keys,
                         void const *const *input, size_t outputs, int const *output_keys, void *const *output) {
    double const *p = NULL;
    int const *flavour = NULL;
    (void)handle;
    for (size_t i = 0; i < inputs; ++i) {
        if (input_keys[i] == MOMENTA) p = input[i];
        if (input_keys[i] == FLAVOUR) flavour = input[i];
    }
    for (size_t event = offset; event < offset + count; ++event) {
        double q[LEGS][4];
        for (int leg = 0; leg < 3; ++leg)
            for (int mu = 0; mu < 4; ++mu) q[leg][mu] = p[event + stride * (leg + LEGS * mu)];
        double const s = 2.0 * (q[0][0] * q[1][0] - q[0][3] * q[1][3]);
        double const t = -2.0 * (q[0][0] * q[2][0] - q[0][3] * q[2][3]);
        double const value = squared(s, t, flavour == NULL || flavour[event] == 0);
        for (size_t i = 0; i < outputs; ++i) {
            if (output_keys[i] == VALUE || output_keys[i] == DIAGRAM)
                ((double *)output[i])[event] = value;
            else if (output_keys[i] <= LAST_INDEX)
                ((int *)output[i])[event] = 0;
        }
    }
    return SUCCESS;
}
