/* |M|^2 of e- e+ -> mu- mu+ by photon exchange, massless, averaged over initial spins:
 *
 *     |M|^2 = 2 (4 pi alpha)^2 (t^2 + u^2) / s^2.
 *
 * momenta holds n points of four legs e-, e+, mu-, mu+, each (E, px, py, pz) in GeV; values receives n numbers. */

static double product(const double *a, const double *b)
{
    return a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3];
}

void squared_matrix_elements(const double *momenta, long n, double alpha, double *values)
{
    const double coupling = 4 * 3.14159265358979323846 * alpha;

    for (long i = 0; i < n; i++) {
        const double *point = momenta + 16 * i;
        const double s = 2 * product(point, point + 4);
        const double t = -2 * product(point, point + 8);
        const double u = -2 * product(point, point + 12);
        values[i] = 2 * coupling * coupling * (t * t + u * u) / (s * s);
    }
}
