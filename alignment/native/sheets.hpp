// Elastic sheets: plane stress on bilinear square cells (T. J. R. Hughes, "The Finite Element
// Method", 1987), written in the cell's five ways to deform instead of as an 8 x 8 matrix.
//
// Inside a cell the slopes of a bilinear function are its mean slopes plus its twist times the
// distance from the middle, so that the energy integrates to
//   E' / 2 (Yy^2 + Xx^2 + 2 nu Yy Xx) + G / 2 (Yx + Xy)^2 + H / 2 (Yt^2 + Xt^2)
// with E' = k / (1 - nu^2), G = E' (1 - nu) / 2, H = (E' + G) / 12, k Young's modulus of the cell.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace petalign {
namespace PETALIGN_ISA {
namespace relax {

struct Grid {
    int nz, ny, nx;
    size_t plane() const { return size_t(ny) * nx; }
    size_t section() const { return 2 * plane(); }  // both components: y's plane, then x's
    size_t size() const { return nz * section(); }
    size_t cells() const { return size_t(std::max(ny - 1, 0)) * std::max(nx - 1, 0); }
};

struct Elasticity {
    float nu;
    // Per unit of Young's modulus.
    float stretch() const { return 1 / (1 - nu * nu); }
    float shear() const { return stretch() * (1 - nu) / 2; }
    float twist() const { return (stretch() + shear()) / 12; }
    // The sum of magnitudes in a row of the cell's 8 x 8 matrix; all rows have the same.
    float row_sum() const {
        const float e = stretch(), g = shear(), h = twist();
        const float own[] = {e / 4 + g / 4 + h, e / 4 - g / 4 - h, -e / 4 + g / 4 - h,
                             -e / 4 - g / 4 + h};
        const float cross = (std::fabs(e * nu + g) + std::fabs(e * nu - g)) / 2;
        float sum = cross;
        for (float value : own) sum += std::fabs(value);
        return sum;
    }
    float diagonal() const { return stretch() / 4 + shear() / 4 + twist(); }
};

// Adds the forces of one section: y += K x. Nodes hold y's plane, then x's.
template <class T>
void add_sheet(const Grid& grid, const Elasticity& elasticity, const float* stiffness, const T* x,
               T* y) {
    const int ny = grid.ny, nx = grid.nx, cells = nx - 1;
    if (ny < 2 || cells < 1) return;
    const T e = elasticity.stretch(), g = elasticity.shear(), h = elasticity.twist();
    const T nu = elasticity.nu;
    const size_t plane = grid.plane();
    // Forces on the corners of a row of cells, with a 0 before the first and after the last.
    std::vector<T> buffer(8 * size_t(nx + 1), T(0));
    T* f[8];
    for (int k = 0; k < 8; ++k) f[k] = buffer.data() + k * size_t(nx + 1) + 1;
    for (int i = 0; i + 1 < ny; ++i) {
        const float* k = stiffness + size_t(i) * cells;
        const T *y0 = x + size_t(i) * nx, *y1 = y0 + nx, *x0 = y0 + plane, *x1 = x0 + nx;
        T *a0 = f[0], *a1 = f[1], *a2 = f[2], *a3 = f[3];
        T *b0 = f[4], *b1 = f[5], *b2 = f[6], *b3 = f[7];
        for (int j = 0; j < cells; ++j) {
            const T half = T(k[j]) / 2;
            const T yl = y1[j] - y0[j], yr = y1[j + 1] - y0[j + 1];
            const T xl = x1[j] - x0[j], xr = x1[j + 1] - x0[j + 1];
            const T yt = y0[j + 1] - y0[j], yb = y1[j + 1] - y1[j];
            const T xt = x0[j + 1] - x0[j], xb = x1[j + 1] - x1[j];
            const T yy = (yl + yr) / 2, xx = (xt + xb) / 2;
            const T sy = half * e * (yy + nu * xx), sx = half * e * (xx + nu * yy);
            const T s = half * g * ((yt + yb) / 2 + (xl + xr) / 2);
            const T ty = 2 * half * h * (yr - yl), tx = 2 * half * h * (xr - xl);
            a0[j] = ty - sy - s, a1[j] = s - sy - ty, a2[j] = sy - s - ty, a3[j] = sy + s + ty;
            b0[j] = tx - s - sx, b1[j] = sx - s - tx, b2[j] = s - sx - tx, b3[j] = s + sx + tx;
        }
        T *to0 = y + size_t(i) * nx, *to1 = to0 + nx, *tx0 = to0 + plane, *tx1 = tx0 + nx;
        for (int j = 0; j < nx; ++j) to0[j] += a0[j] + a1[j - 1];
        for (int j = 0; j < nx; ++j) to1[j] += a2[j] + a3[j - 1];
        for (int j = 0; j < nx; ++j) tx0[j] += b0[j] + b1[j - 1];
        for (int j = 0; j < nx; ++j) tx1[j] += b2[j] + b3[j - 1];
    }
}

// The energy of one section's displacements.
inline double sheet_energy(const Grid& grid, const Elasticity& elasticity, const float* stiffness,
                           const double* x) {
    const int nx = grid.nx, cells = nx - 1;
    const double e = elasticity.stretch(), g = elasticity.shear(), h = elasticity.twist();
    const double nu = elasticity.nu;
    double total = 0;
    for (int i = 0; i + 1 < grid.ny; ++i) {
        const double *y0 = x + size_t(i) * nx, *y1 = y0 + nx, *x0 = y0 + grid.plane(),
                     *x1 = x0 + nx;
        double row = 0;
        for (int j = 0; j < cells; ++j) {
            const double yl = y1[j] - y0[j], yr = y1[j + 1] - y0[j + 1];
            const double xl = x1[j] - x0[j], xr = x1[j + 1] - x0[j + 1];
            const double yy = (yl + yr) / 2;
            const double xx = (x0[j + 1] - x0[j] + x1[j + 1] - x1[j]) / 2;
            const double s = (y0[j + 1] - y0[j] + y1[j + 1] - y1[j] + xl + xr) / 2;
            const double twist = (yr - yl) * (yr - yl) + (xr - xl) * (xr - xl);
            row += stiffness[size_t(i) * cells + j] *
                   (e * (yy * yy + xx * xx + 2 * nu * yy * xx) + g * s * s + h * twist);
        }
        total += row;
    }
    return total / 2;
}

}  // namespace relax
}  // namespace PETALIGN_ISA
}  // namespace petalign
