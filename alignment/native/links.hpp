// Matches as links between two meshes: U_z(p) - U_fixed(p + m) should be m.
//
// A link's energy is r' W r / 2, r its residual and W its 2 x 2 weight. U is bilinear between nodes
// and constant beyond the outermost. The links of a pair of sections lie on a grid of their own,
// `ratio` nodes apart, from node (0, 0) on.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "sheets.hpp"

namespace petalign {
namespace PETALIGN_ISA {
namespace relax {

struct Links {
    int32_t z, fixed;  // sections
    int32_t my, mx;
    double ratio;
    const float* match;   // (2, my, mx), px; not read where the weight is 0
    const float* weight;  // (3, my, mx): yy, yx, xx
    size_t count() const { return size_t(my) * mx; }
};

// Where a point lies among the nodes of one axis.
struct Place {
    int low, step;  // the node before it; how far the next one is (0 where there is none)
    float share;    // of the next one
};

inline Place place(double at, int n) {
    const double inside = std::min(std::max(at, 0.0), double(n - 1));
    const int low = std::min(int(inside), std::max(n - 2, 0));
    return {low, n > 1 ? 1 : 0, float(inside - low)};
}

// The same for a point some way from a node: exact to the float's bits wherever the node lies.
inline Place place(int node, float way, int n) {
    const int whole = int(way) - (way < float(int(way)));
    int low = node + whole;
    float share = way - float(whole);
    if (low < 0) low = 0, share = 0;
    if (low > n - 2) low = n > 1 ? n - 2 : 0, share = n > 1 ? 1.0f : 0.0f;
    return {low, n > 1 ? 1 : 0, share};
}

// The four nodes around a point, and their shares.
struct Corners {
    size_t node[4];
    float share[4];
    Corners(const Place& y, const Place& x, int nx) {
        node[0] = size_t(y.low) * nx + x.low;
        node[1] = node[0] + x.step;
        node[2] = node[0] + size_t(y.step) * nx;
        node[3] = node[2] + x.step;
        const float upper = 1 - y.share, left = 1 - x.share;  // no share is below 0
        share[0] = upper * left;
        share[1] = upper * x.share;
        share[2] = y.share * left;
        share[3] = y.share * x.share;
    }
    template <class T>
    T value(const T* u) const {
        return share[0] * u[node[0]] + share[1] * u[node[1]] + share[2] * u[node[2]] +
               share[3] * u[node[3]];
    }
    template <class T>
    void add(T* u, T amount) const {
        for (int k = 0; k < 4; ++k) u[node[k]] += share[k] * amount;
    }
    template <class T>
    void add_squares(T* u, T amount) const {
        for (int k = 0; k < 4; ++k) u[node[k]] += share[k] * share[k] * amount;
    }
};

// A point on a node, as most links begin.
struct Node {
    size_t node;
    template <class T>
    T value(const T* u) const {
        return u[node];
    }
    template <class T>
    void add(T* u, T amount) const {
        u[node] += amount;
    }
    template <class T>
    void add_squares(T* u, T amount) const {
        u[node] += amount;
    }
};

// Calls work(index, corners at p, corners at p + m) for every link that weighs something.
template <class Work>
void each_link(const Links& links, const float* weight, const Grid& grid, double px_per_node,
               Work&& work) {
    const size_t count = links.count();
    const float *my = links.match, *mx = links.match + count;
    if (links.ratio == 1 && links.my <= grid.ny && links.mx <= grid.nx) {
        const float nodes_per_px = float(1 / px_per_node);
        for (int i = 0; i < links.my; ++i)
            for (int j = 0; j < links.mx; ++j) {
                const size_t k = size_t(i) * links.mx + j;
                if (weight[k] == 0) continue;
                work(k, Node{size_t(i) * grid.nx + j},
                     Corners(place(i, my[k] * nodes_per_px, grid.ny),
                             place(j, mx[k] * nodes_per_px, grid.nx), grid.nx));
            }
        return;
    }
    const double nodes_per_px = 1 / px_per_node;
    for (int i = 0; i < links.my; ++i) {
        const double y = i * links.ratio;
        const Place at_y = place(y, grid.ny);
        for (int j = 0; j < links.mx; ++j) {
            const size_t k = size_t(i) * links.mx + j;
            if (weight[k] == 0) continue;
            const double x = j * links.ratio;
            work(k, Corners(at_y, place(x, grid.nx), grid.nx),
                 Corners(place(y + my[k] * nodes_per_px, grid.ny),
                         place(x + mx[k] * nodes_per_px, grid.nx), grid.nx));
        }
    }
}

// The difference U_z(p) - U_fixed(p + m); `u` and `v` are the two sections' nodes.
template <class Here, class T>
inline void difference(const Here& here, const Corners& there, size_t plane, const T* u,
                       const T* v, T& y, T& x) {
    y = here.value(u) - there.value(v);
    x = here.value(u + plane) - there.value(v + plane);
}

// Adds the forces J' W J x of one pair: to the moving section, the fixed one, or both.
template <class T>
void add_links(const Links& links, const Grid& grid, double px_per_node, const T* x, T* y,
               bool to_moving, bool to_fixed) {
    const size_t count = links.count(), plane = grid.plane();
    const T *u = x + links.z * grid.section(), *v = x + links.fixed * grid.section();
    T *fu = y + links.z * grid.section(), *fv = y + links.fixed * grid.section();
    const float* w = links.weight;
    each_link(links, w, grid, px_per_node, [&](size_t k, const auto& here, const Corners& there) {
        T ry, rx;
        difference(here, there, plane, u, v, ry, rx);
        const T fy = w[k] * ry + w[k + count] * rx;
        const T fx = w[k + count] * ry + w[k + 2 * count] * rx;
        if (to_moving) here.add(fu, fy), here.add(fu + plane, fx);
        if (to_fixed) there.add(fv, -fy), there.add(fv + plane, -fx);
    });
}

}  // namespace relax
}  // namespace PETALIGN_ISA
}  // namespace petalign
