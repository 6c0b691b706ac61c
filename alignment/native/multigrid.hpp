// Levels of meshes, each half as fine as the one before, and a V-cycle over them.
//
// A coarse level is a problem of the same kind, gathered from the finer one: stiffness is averaged,
// and links are summed at the coarse nodes around them. Where all is smooth that is the Galerkin
// matrix P' A P; elsewhere it costs a little more, never less (Jensen), so its correction stays
// safe. Levels are smoothed by a Chebyshev polynomial of the matrix, scaled by the sums of
// magnitudes in its rows, which bound its spectrum by 1.
//
// U. Trottenberg, C. W. Oosterlee, A. Schueller, "Multigrid", 2001; M. Adams, M. Brezina, J. Hu,
// R. Tuminaro, "Parallel multigrid smoothing", J. Comput. Phys. 188, 2003.
#pragma once

#include <cstring>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "links.hpp"
#include "ranges.hpp"

namespace petalign {
namespace PETALIGN_ISA {
namespace relax {

constexpr size_t kCoarsest = 200;       // unknowns that are solved for directly
constexpr float kSmoothedShare = 0.15f;  // a level smooths the spectrum above this
constexpr int kSmoothingSteps = 2;
// Of links to stiffness: where sections hang together less, only y and x are halved.
constexpr double kWeak = 0.3;

// How an axis of n nodes is halved: every second node stays.
struct Halving {
    int fine, coarse;
    bool is_on;
    Halving(int n, bool on) : fine(n), is_on(on && n > 1) {
        coarse = is_on ? n / 2 + 1 : n;
    }
    // The coarse nodes that make up a fine one.
    int count(int k) const { return is_on && k % 2 ? 2 : 1; }
    int parent(int k) const { return is_on ? k / 2 : k; }
    float share(int k) const { return is_on && k % 2 ? 0.5f : 1.0f; }
};

// Sections are halved likewise, but in a V-cycle the last two become one.
struct SectionHalving : Halving {
    SectionHalving(int n, bool on, bool joins_two) : Halving(n, on) {
        if (is_on && n == 2 && joins_two) coarse = 1, is_pair = true;
    }
    bool is_pair = false;
    int count(int k) const { return is_pair ? 1 : Halving::count(k); }
    int parent(int k) const { return is_pair ? 0 : Halving::parent(k); }
    float share(int k) const { return is_pair ? 1.0f : Halving::share(k); }
};

struct Level {
    Grid grid;
    double px_per_node = 1;
    Elasticity elasticity{0.25f};
    const float* stiffness = nullptr;  // (nz, ny - 1, nx - 1)
    const float* mass = nullptr;       // (nz, ny, nx): weight of |u|^2 / 2
    const float* free = nullptr;       // (nz, ny, nx): 0 where a node must not move, else 1; or null
    std::vector<Links> links;          // by section, then by the one that is fixed
    std::vector<std::vector<float>> kept;
    std::vector<float> scale;  // inverse row sums, 0 where nothing holds a node
    std::vector<float> x, b, r, step, image;
    bool halves_z = false, halves_yx = false;  // on the way to the next level
    bool joins_two = true;

    Halving along(int n) const { return Halving(n, halves_yx); }
    SectionHalving along_z() const { return SectionHalving(grid.nz, halves_z, joins_two); }
    const float* keep(std::vector<float>&& values) {
        kept.push_back(std::move(values));
        return kept.back().data();
    }
};

// Sets nodes that must not move to 0.
template <class T>
void hold(const Level& level, int z, T* section) {
    if (!level.free) return;
    const size_t plane = level.grid.plane();
    const float* free = level.free + z * plane;
    for (size_t k = 0; k < plane; ++k)
        if (free[k] == 0) section[k] = section[k + plane] = 0;
}

// y = A x. The sums of a node run in one order, whoever computes them.
template <class T>
void apply(const Level& level, Ranges& threads, const T* x, T* y) {
    const Grid& grid = level.grid;
    const size_t plane = grid.plane(), section = grid.section();
    threads.over(grid.nz, grid.size(), [&](int first, int last) {
        for (int z = first; z < last; ++z) {
            const T* from = x + z * section;
            T* to = y + z * section;
            const float* mass = level.mass + z * plane;
            for (size_t k = 0; k < plane; ++k) to[k] = mass[k] * from[k];
            for (size_t k = 0; k < plane; ++k) to[k + plane] = mass[k] * from[k + plane];
            add_sheet(grid, level.elasticity, level.stiffness + z * grid.cells(), from, to);
        }
        for (const Links& links : level.links) {
            const bool to_moving = links.z >= first && links.z < last;
            const bool to_fixed = links.fixed >= first && links.fixed < last;
            if (to_moving || to_fixed)
                add_links(links, grid, level.px_per_node, x, y, to_moving, to_fixed);
        }
        for (int z = first; z < last; ++z) hold(level, z, y + z * section);
    });
}

// Sums of magnitudes in the rows of the links' and of the sheets' matrix.
inline void add_row_sums(const Level& level, Ranges& threads, float* of_links, float* of_sheets) {
    const Grid& grid = level.grid;
    const size_t plane = grid.plane(), section = grid.section();
    const float row_sum = level.elasticity.row_sum();
    threads.over(grid.nz, grid.size(), [&](int first, int last) {
        for (int z = first; z < last; ++z) {
            const float* stiffness = level.stiffness + z * grid.cells();
            float* sums = of_sheets + z * section;
            for (int i = 0; i + 1 < grid.ny; ++i)
                for (int j = 0; j + 1 < grid.nx; ++j) {
                    const float sum = row_sum * *stiffness++;
                    const size_t k = size_t(i) * grid.nx + j;
                    sums[k] += sum, sums[k + 1] += sum;
                    sums[k + grid.nx] += sum, sums[k + grid.nx + 1] += sum;
                }
            std::copy(sums, sums + plane, sums + plane);
        }
        for (const Links& links : level.links) {
            const bool to_moving = links.z >= first && links.z < last;
            const bool to_fixed = links.fixed >= first && links.fixed < last;
            if (!to_moving && !to_fixed) continue;
            float* moving = of_links + links.z * section;
            float* fixed = of_links + links.fixed * section;
            const size_t count = links.count();
            const float* w = links.weight;
            each_link(links, w, grid, level.px_per_node,
                      [&](size_t k, const auto& here, const Corners& there) {
                          const float cross = std::fabs(w[k + count]);
                          const float y = 2 * (w[k] + cross), x = 2 * (w[k + 2 * count] + cross);
                          if (to_moving) here.add(moving, y), here.add(moving + plane, x);
                          if (to_fixed) there.add(fixed, y), there.add(fixed + plane, x);
                      });
        }
    });
}

inline double total(const std::vector<float>& values) {
    double sum = 0;
    for (float value : values) sum += value;
    return sum;
}

// Finds the scale of a level's smoother, and along which axes it is to be halved.
inline void finish(Level& level, Ranges& threads) {
    const Grid& grid = level.grid;
    const size_t plane = grid.plane();
    level.scale.assign(grid.size(), 0);
    std::vector<float> sums(grid.size(), 0);
    add_row_sums(level, threads, level.scale.data(), sums.data());
    const double links = total(level.scale), sheets = total(sums);
    for (int z = 0; z < grid.nz; ++z)
        for (size_t k = 0; k < 2 * plane; ++k) {
            const size_t at = z * grid.section() + k;
            const size_t node = z * plane + k % plane;
            const float sum = level.scale[at] + sums[at] + level.mass[node];
            const bool is_free = !level.free || level.free[node] > 0;
            level.scale[at] = sum > 0 && is_free ? 1 / sum : 0;
        }
    const bool can_z = grid.nz > 1, can_yx = grid.ny > 2 || grid.nx > 2;
    level.halves_z = can_z && (links > kWeak * sheets || !can_yx);
    level.halves_yx = can_yx;
}

// Adds to the nodes' mass what holds free nodes to those that must not move.
inline void add_holds(const Level& level, std::vector<float>& mass) {
    const Grid& grid = level.grid;
    const size_t plane = grid.plane();
    const float diagonal = level.elasticity.diagonal();
    for (int z = 0; z < grid.nz; ++z) {
        const float* free = level.free + z * plane;
        const float* stiffness = level.stiffness + z * grid.cells();
        for (int i = 0; i + 1 < grid.ny; ++i)
            for (int j = 0; j + 1 < grid.nx; ++j, ++stiffness) {
                const size_t k = size_t(i) * grid.nx + j;
                const size_t corners[] = {k, k + 1, k + grid.nx, k + grid.nx + 1};
                if (free[k] + free[k + 1] + free[corners[2]] + free[corners[3]] == 4) continue;
                for (size_t corner : corners)
                    if (free[corner] > 0) mass[z * plane + corner] += diagonal * *stiffness;
            }
    }
    for (size_t k = 0; k < mass.size(); ++k)
        if (level.free[k] == 0) mass[k] = 0;
}

// How much of a point's value comes from nodes that may move.
template <class Place>
inline float free_share(const Place& at, const float* free) {
    return free ? at.value(free) : 1.0f;
}

// Sums the links of a level at the nodes of the next; those that end at a node that must not move
// become mass of the other end.
inline void halve_links(const Level& fine, Level& coarse, std::vector<float>& mass) {
    const SectionHalving in_z = fine.along_z();
    const Halving in_y = fine.along(fine.grid.ny), in_x = fine.along(fine.grid.nx);
    const double half = fine.halves_yx ? 0.5 : 1;
    const size_t plane = fine.grid.plane(), nodes = coarse.grid.plane();
    std::map<std::pair<int, int>, std::vector<float>> sums;
    for (const Links& links : fine.links) {
        // The parts of the moving section's parents, coupled in order with those of the fixed one.
        struct Part {
            float* to;
            float share;
        };
        std::vector<Part> parts;
        float apart = 0, left[2] = {1, 1};
        const int sections[2] = {links.z, links.fixed};
        int parent[2];
        for (int s = 0; s < 2; ++s) {
            parent[s] = in_z.parent(sections[s]);
            left[s] = in_z.share(sections[s]);
        }
        for (float rest = 1; rest > 0;) {
            const float share = std::min({left[0], left[1], rest});
            if (parent[0] != parent[1]) {
                auto& sum = sums[{parent[0], parent[1]}];
                sum.resize(5 * nodes, 0);
                parts.push_back({sum.data(), share});
                apart += share;
            }
            rest -= share;
            for (int s = 0; s < 2; ++s)
                if ((left[s] -= share) <= 0) ++parent[s], left[s] = 1;
        }
        const size_t count = links.count();
        const float* w = links.weight;
        const float* free = fine.free;
        each_link(links, w, fine.grid, fine.px_per_node,
                  [&](size_t k, const auto& here, const Corners& there) {
                      const float weights[3] = {w[k], w[k + count], w[k + 2 * count]};
                      const float trace = weights[0] + weights[2];
                      const float a = free_share(here, free ? free + links.z * plane : nullptr);
                      const float b =
                          free_share(there, free ? free + links.fixed * plane : nullptr);
                      if (free) {
                          here.add(mass.data() + links.z * plane, trace / 2 * a * (1 - b));
                          there.add(mass.data() + links.fixed * plane, trace / 2 * b * (1 - a));
                      }
                      const size_t i = k / links.mx, j = k % links.mx;
                      const Corners to(place(i * links.ratio * half, in_y.coarse),
                                       place(j * links.ratio * half, in_x.coarse), in_x.coarse);
                      const float my = links.match[k], mx = links.match[k + count];
                      for (const Part& part : parts) {
                          const float share = part.share * apart * a * b;
                          for (int c = 0; c < 3; ++c)
                              to.add(part.to + c * nodes, share * weights[c]);
                          to.add(part.to + 3 * nodes, share * trace * my);
                          to.add(part.to + 4 * nodes, share * trace * mx);
                      }
                  });
    }
    for (auto& [sections, sum] : sums) {
        for (size_t k = 0; k < nodes; ++k) {
            const float trace = sum[k] + sum[k + 2 * nodes];
            if (trace > 0) sum[k + 3 * nodes] /= trace, sum[k + 4 * nodes] /= trace;
        }
        const float* kept = coarse.keep(std::move(sum));
        coarse.links.push_back({sections.first, sections.second, coarse.grid.ny, coarse.grid.nx, 1.0,
                                kept + 3 * nodes, kept});
    }
}

// Adds a fine section's cells (or nodes) to the coarse ones: `share` of each.
inline void halve_cells(const Level& fine, const float* from, float* to, float share, int coarse_x) {
    const int cells_y = fine.grid.ny - 1, cells_x = fine.grid.nx - 1, by = fine.halves_yx ? 2 : 1;
    const float part = share / (by * by);
    for (int i = 0; i < cells_y; ++i)
        for (int j = 0; j < cells_x; ++j)
            to[size_t(i / by) * coarse_x + j / by] += part * from[size_t(i) * cells_x + j];
}

// b_coarse += share P' r, one plane of one section.
inline void restrict_plane(const Halving& in_y, const Halving& in_x, const float* from, float* to,
                           float share) {
    for (int i = 0; i < in_y.fine; ++i)
        for (int n = 0; n < in_y.count(i); ++n) {
            float* row = to + size_t(in_y.parent(i) + n) * in_x.coarse;
            const float* line = from + size_t(i) * in_x.fine;
            const float part = share * in_y.share(i);
            if (!in_x.is_on) {
                for (int j = 0; j < in_x.fine; ++j) row[j] += part * line[j];
                continue;
            }
            for (int j = 0; j < in_x.fine; j += 2) row[j / 2] += part * line[j];
            for (int j = 1; j < in_x.fine; j += 2) {
                const float half = part / 2 * line[j];
                row[j / 2] += half, row[j / 2 + 1] += half;
            }
        }
}

// x_fine += share P x_coarse, one plane of one section.
inline void prolong_plane(const Halving& in_y, const Halving& in_x, const float* from, float* to,
                          float share) {
    for (int i = 0; i < in_y.fine; ++i)
        for (int n = 0; n < in_y.count(i); ++n) {
            const float* row = from + size_t(in_y.parent(i) + n) * in_x.coarse;
            float* line = to + size_t(i) * in_x.fine;
            const float part = share * in_y.share(i);
            if (!in_x.is_on) {
                for (int j = 0; j < in_x.fine; ++j) line[j] += part * row[j];
                continue;
            }
            for (int j = 0; j < in_x.fine; j += 2) line[j] += part * row[j / 2];
            for (int j = 1; j < in_x.fine; j += 2)
                line[j] += part / 2 * (row[j / 2] + row[j / 2 + 1]);
        }
}

// The residual of a level becomes the right-hand side of the next.
inline void restrict_to(const Level& fine, const Level& coarse, Ranges& threads, const float* r,
                        float* b) {
    const SectionHalving in_z = fine.along_z();
    const Halving in_y = fine.along(fine.grid.ny), in_x = fine.along(fine.grid.nx);
    threads.over(coarse.grid.nz, fine.grid.size(), [&](int first, int last) {
        std::fill(b + first * coarse.grid.section(), b + last * coarse.grid.section(), 0.0f);
        for (int z = 0; z < fine.grid.nz; ++z)
            for (int n = 0; n < in_z.count(z); ++n) {
                const int to = in_z.parent(z) + n;
                if (to < first || to >= last) continue;
                for (int c = 0; c < 2; ++c)
                    restrict_plane(in_y, in_x, r + z * fine.grid.section() + c * fine.grid.plane(),
                                   b + to * coarse.grid.section() + c * coarse.grid.plane(),
                                   in_z.share(z));
            }
    });
}

// x += P of the next level's solution.
inline void prolong_from(const Level& coarse, const Level& fine, Ranges& threads, const float* from,
                         float* x) {
    const SectionHalving in_z = fine.along_z();
    const Halving in_y = fine.along(fine.grid.ny), in_x = fine.along(fine.grid.nx);
    threads.over(fine.grid.nz, fine.grid.size(), [&](int first, int last) {
        for (int z = first; z < last; ++z) {
            for (int n = 0; n < in_z.count(z); ++n)
                for (int c = 0; c < 2; ++c)
                    prolong_plane(
                        in_y, in_x,
                        from + (in_z.parent(z) + n) * coarse.grid.section() +
                            c * coarse.grid.plane(),
                        x + z * fine.grid.section() + c * fine.grid.plane(), in_z.share(z));
            hold(fine, z, x + z * fine.grid.section());
        }
    });
}

// Makes the next level.
inline std::unique_ptr<Level> halve(const Level& fine) {
    auto coarse = std::make_unique<Level>();
    const SectionHalving in_z = fine.along_z();
    const Halving in_y = fine.along(fine.grid.ny), in_x = fine.along(fine.grid.nx);
    coarse->grid = {in_z.coarse, in_y.coarse, in_x.coarse};
    coarse->px_per_node = fine.px_per_node * (fine.halves_yx ? 2 : 1);
    coarse->elasticity = fine.elasticity;
    std::vector<float> held(fine.mass, fine.mass + fine.grid.nz * fine.grid.plane());
    halve_links(fine, *coarse, held);
    if (fine.free) add_holds(fine, held);
    std::vector<float> mass(coarse->grid.nz * coarse->grid.plane(), 0);
    std::vector<float> stiffness(coarse->grid.nz * coarse->grid.cells(), 0);
    for (int z = 0; z < fine.grid.nz; ++z)
        for (int n = 0; n < in_z.count(z); ++n) {
            const int to = in_z.parent(z) + n;
            restrict_plane(in_y, in_x, held.data() + z * fine.grid.plane(),
                           mass.data() + to * coarse->grid.plane(), in_z.share(z));
            halve_cells(fine, fine.stiffness + z * fine.grid.cells(),
                        stiffness.data() + to * coarse->grid.cells(), in_z.share(z),
                        coarse->grid.nx - 1);
        }
    coarse->mass = coarse->keep(std::move(mass));
    coarse->stiffness = coarse->keep(std::move(stiffness));
    return coarse;
}

// The inverse of the coarsest level's matrix, by Cholesky's factors.
class Direct {
   public:
    void factorise(const Level& level, Ranges& threads) {
        n_ = level.grid.size();
        factor_.assign(n_ * n_, 0);
        std::vector<double> unit(n_, 0);
        for (size_t k = 0; k < n_; ++k) {
            unit[k] = 1;
            apply(level, threads, unit.data(), factor_.data() + k * n_);
            unit[k] = 0;
        }
        for (size_t j = 0; j < n_; ++j) {
            const double least = kLeastPivot * factor_[j * n_ + j];
            for (size_t i = j; i < n_; ++i) {
                double sum = factor_[i * n_ + j];
                for (size_t k = 0; k < j; ++k) sum -= factor_[i * n_ + k] * factor_[j * n_ + k];
                // What nothing holds is left where it is.
                if (i == j) sum = sum > least && level.scale[j] > 0 ? std::sqrt(sum) : kHuge;
                factor_[i * n_ + j] = i == j ? sum : sum / factor_[j * n_ + j];
            }
        }
    }

    void solve(const float* b, float* x) const {
        std::vector<double> y(b, b + n_);
        for (size_t i = 0; i < n_; ++i) {
            for (size_t k = 0; k < i; ++k) y[i] -= factor_[i * n_ + k] * y[k];
            y[i] /= factor_[i * n_ + i];
        }
        for (size_t i = n_; i-- > 0;) {
            for (size_t k = i + 1; k < n_; ++k) y[i] -= factor_[k * n_ + i] * y[k];
            y[i] /= factor_[i * n_ + i];
            x[i] = float(y[i]);
        }
    }

   private:
    static constexpr double kLeastPivot = 1e-10, kHuge = 1e15;
    size_t n_ = 0;
    std::vector<double> factor_;
};

class Multigrid {
   public:
    // Builds the levels below `finest`, which stays with the caller.
    void build(Level& finest, Ranges& threads) {
        threads_ = &threads;
        coarser_.clear();
        levels_ = {&finest};
        finest.joins_two = true;
        finish(finest, threads);
        while (levels_.back()->grid.size() > kCoarsest &&
               (levels_.back()->halves_z || levels_.back()->halves_yx)) {
            coarser_.push_back(halve(*levels_.back()));
            levels_.push_back(coarser_.back().get());
            finish(*levels_.back(), threads);
        }
        for (Level* level : levels_)
            for (auto* values : {&level->x, &level->b, &level->r, &level->step, &level->image})
                values->resize(level->grid.size());
        direct_.factorise(*levels_.back(), threads);
    }

    // Builds just the levels that come of halving all axes so many times.
    void condense(Level& finest, int halvings) {
        coarser_.clear();
        levels_ = {&finest};
        for (int n = 0; n < halvings; ++n) {
            levels_.back()->halves_z = levels_.back()->halves_yx = true;
            levels_.back()->joins_two = false;
            coarser_.push_back(halve(*levels_.back()));
            levels_.push_back(coarser_.back().get());
        }
    }

    const std::vector<Level*>& levels() const { return levels_; }

    // One symmetric V-cycle from 0: the finest level's b gives its x.
    void cycle(size_t depth = 0) {
        Level& level = *levels_[depth];
        if (depth + 1 == levels_.size()) return direct_.solve(level.b.data(), level.x.data());
        Level& next = *levels_[depth + 1];
        smooth(level, level.b.data(), true);
        find_residual(level);
        restrict_to(level, next, *threads_, level.r.data(), next.b.data());
        cycle(depth + 1);
        prolong_from(next, level, *threads_, next.x.data(), level.x.data());
        find_residual(level);
        smooth(level, level.r.data(), false);
    }

   private:
    void find_residual(Level& level) {
        apply(level, *threads_, level.x.data(), level.r.data());
        threads_->over(level.grid.nz, level.grid.size(), [&](int first, int last) {
            const size_t end = last * level.grid.section();
            for (size_t k = first * level.grid.section(); k < end; ++k)
                level.r[k] = level.b[k] - level.r[k];
        });
    }

    // Chebyshev iteration on the upper part of the spectrum, for the right-hand side `b`; adds to
    // x, or sets it.
    void smooth(Level& level, const float* b, bool is_first) {
        constexpr float centre = (1 + kSmoothedShare) / 2, radius = (1 - kSmoothedShare) / 2;
        const size_t section = level.grid.section();
        float *x = level.x.data(), *step = level.step.data(), *r = level.r.data(),
              *image = level.image.data();
        const float* scale = level.scale.data();
        threads_->over(level.grid.nz, level.grid.size(), [&](int first, int last) {
            for (size_t k = first * section; k < last * section; ++k) {
                step[k] = scale[k] * b[k] / centre;
                x[k] = is_first ? step[k] : x[k] + step[k];
            }
        });
        float ratio = radius / centre;
        for (int n = 1; n < kSmoothingSteps; ++n) {
            apply(level, *threads_, step, image);
            const float following = 1 / (2 * centre / radius - ratio);
            const float old = following * ratio, add = 2 * following / radius;
            const float* from = n == 1 ? b : r;
            threads_->over(level.grid.nz, level.grid.size(), [&](int first, int last) {
                for (size_t k = first * section; k < last * section; ++k) {
                    r[k] = from[k] - image[k];
                    step[k] = old * step[k] + add * scale[k] * r[k];
                    x[k] += step[k];
                }
            });
            ratio = following;
        }
    }

    Ranges* threads_ = nullptr;
    std::vector<std::unique_ptr<Level>> coarser_;
    std::vector<Level*> levels_;
    Direct direct_;
};

}  // namespace relax
}  // namespace PETALIGN_ISA
}  // namespace petalign
