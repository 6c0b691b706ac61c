// The energy of a stack of elastic sheets that matches tie, its gradient, and Newton's steps on it.
//
//   E(u) = sum over links  w huber(|r|_P) + sheets + mass / 2 |u|^2,  |r|_P^2 = r' P r
//
// Everything is computed from the matches and the cells' stiffness where it is needed: no matrix is
// ever stored. Displacements are doubles; the V-cycle that preconditions them works in floats.
#include <cstring>
#include <exception>

#include "library.hpp"
#include "multigrid.hpp"

namespace petalign {
namespace PETALIGN_ISA {
namespace relax {

struct PairInput {
    int32_t z, fixed, my, mx;
    double ratio;
    const float* match;      // (2, my, mx), px
    const float* weight;     // (my, mx); 0 leaves a match out
    const float* precision;  // (3, my, mx): yy, yx, xx; null: the unit matrix
};

struct StackInput {
    int32_t nz, ny, nx, n_pairs;
    double px_per_node, poisson_ratio;
    const float* stiffness;
    const float* mass;
    const float* free;
    const PairInput* pairs;
    int32_t threads;
};

constexpr double kLeast = 1e-4;  // share of its weight that a wrong match keeps in Newton's steps

enum class Weights { kKeep, kMajorise, kNewton };

// Random signs that belong to a place, whoever draws them (the mixer of splitmix64).
class Signs {
   public:
    Signs(uint64_t seed, uint64_t a, uint64_t b, uint64_t c) {
        for (uint64_t word : {seed, a, b, c}) bits_ = mix(bits_ ^ (word + 0x9e3779b97f4a7c15u));
    }
    float next() {
        const float sign = bits_ & 1 ? 1.0f : -1.0f;
        bits_ >>= 1;
        return sign;
    }

   private:
    static uint64_t mix(uint64_t x) {
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
        return x ^ (x >> 31);
    }
    uint64_t bits_ = 0;
};

class Stack {
   public:
    explicit Stack(const StackInput& input)
        : threads_(input.threads), pairs_(input.pairs, input.pairs + input.n_pairs) {
        fine_.grid = {input.nz, input.ny, input.nx};
        fine_.px_per_node = input.px_per_node;
        fine_.elasticity = {float(input.poisson_ratio)};
        fine_.stiffness = input.stiffness;
        fine_.mass = input.mass;
        fine_.free = input.free;
        size_t count = 0;
        for (const PairInput& pair : pairs_) count += 3 * size_t(pair.my) * pair.mx;
        weights_.resize(count);
        float* w = weights_.data();
        for (const PairInput& pair : pairs_) {
            const size_t n = size_t(pair.my) * pair.mx;
            fine_.links.push_back(
                {pair.z, pair.fixed, pair.my, pair.mx, pair.ratio, pair.match, w});
            for (size_t k = 0; k < n; ++k) {
                float p[3];
                precision(pair, k, p);
                for (int c = 0; c < 3; ++c) w[k + c * n] = pair.weight[k] * p[c];
            }
            w += 3 * n;
        }
    }

    Level& fine() { return fine_; }
    Ranges& threads() { return threads_; }
    Multigrid& multigrid() { return multigrid_; }
    void prepare() { multigrid_.build(fine_, threads_); }

    // The energy's three parts; its gradient, unless null; and new weights of the links.
    void evaluate(const double* u, double* gradient, double* energies, double huber,
                  Weights mode) {
        const Grid& grid = fine_.grid;
        const size_t plane = grid.plane(), section = grid.section();
        std::vector<double> parts(3 * grid.nz, 0);
        threads_.over(grid.nz, grid.size(), [&](int first, int last) {
            for (int z = first; z < last; ++z) {
                const double* from = u + z * section;
                const float* mass = fine_.mass + z * plane;
                const float* stiffness = fine_.stiffness + z * grid.cells();
                double sum = 0;
                for (size_t k = 0; k < plane; ++k)
                    sum += mass[k] * (from[k] * from[k] + from[k + plane] * from[k + plane]);
                parts[3 * z + 2] = sum / 2;
                parts[3 * z + 1] = sheet_energy(grid, fine_.elasticity, stiffness, from);
                if (!gradient) continue;
                double* to = gradient + z * section;
                for (size_t k = 0; k < section; ++k) to[k] = mass[k % plane] * from[k];
                add_sheet(grid, fine_.elasticity, stiffness, from, to);
            }
            for (size_t n = 0; n < pairs_.size(); ++n) {
                const PairInput& pair = pairs_[n];
                const bool to_moving = pair.z >= first && pair.z < last;
                const bool to_fixed = pair.fixed >= first && pair.fixed < last;
                if (to_moving || (to_fixed && gradient))
                    evaluate_pair(n, u, gradient, to_moving, to_fixed, huber, mode,
                                  parts.data());
            }
            if (gradient)
                for (int z = first; z < last; ++z) hold(fine_, z, gradient + z * section);
        });
        for (int c = 0; c < 3; ++c) {
            energies[c] = 0;
            for (int z = 0; z < grid.nz; ++z) energies[c] += parts[3 * z + c];
        }
    }

    // Conjugate gradients for A x = b, from 0. Returns the steps; writes the relative residuals.
    int solve(const double* b, double* x, double tolerance, int max_steps, double* residuals) {
        const size_t size = fine_.grid.size();
        std::vector<double> r(b, b + size), p(size), q(size);
        std::memset(x, 0, size * sizeof(double));
        const double goal = dot(r.data(), r.data());
        if (goal == 0) return 0;
        double before = 1;
        for (int step = 0;; ++step) {
            residuals[step] = std::sqrt(dot(r.data(), r.data()) / goal);
            if (residuals[step] <= tolerance || step == max_steps) return step;
            precondition(r.data());
            const float* z = fine_.x.data();
            const double now = dot(r.data(), z);
            const double ratio = step ? now / before : 0;
            each([&](size_t k) { p[k] = z[k] + ratio * p[k]; });
            apply(fine_, threads_, p.data(), q.data());
            const double length = now / dot(p.data(), q.data());
            each([&](size_t k) { x[k] += length * p[k], r[k] -= length * q[k]; });
            before = now;
        }
    }

    void precondition(const double* r) {
        each([&](size_t k) { fine_.b[k] = float(r[k]); });
        multigrid_.cycle();
    }

    // The diagonal of the links' matrix J' W J.
    void information(double* diagonal) {
        const Grid& grid = fine_.grid;
        const size_t plane = grid.plane(), section = grid.section();
        std::memset(diagonal, 0, grid.size() * sizeof(double));
        for (const Links& links : fine_.links) {
            const size_t count = links.count();
            const float* w = links.weight;
            double* moving = diagonal + links.z * section;
            double* fixed = diagonal + links.fixed * section;
            each_link(links, w, grid, fine_.px_per_node,
                      [&](size_t k, const auto& here, const Corners& there) {
                          const double y = w[k], x = w[k + 2 * count];
                          here.add_squares(moving, y), here.add_squares(moving + plane, x);
                          there.add_squares(fixed, y), there.add_squares(fixed + plane, x);
                      });
        }
    }

    // Forces of random signs, for every way to deform: their covariance is the links' matrix, or
    // the rest of A. `origin` is where in the whole volume this stack's node (0, 0, 0) lies.
    void link_forces(uint64_t seed, const int32_t* origin, double* forces) {
        const Grid& grid = fine_.grid;
        const size_t plane = grid.plane(), section = grid.section();
        std::memset(forces, 0, grid.size() * sizeof(double));
        for (const Links& links : fine_.links) {
            const size_t count = links.count();
            const float* w = links.weight;
            double* moving = forces + links.z * section;
            double* fixed = forces + links.fixed * section;
            each_link(links, w, grid, fine_.px_per_node,
                      [&](size_t k, const auto& here, const Corners& there) {
                          const uint64_t y = uint64_t(origin[1]) + k / links.mx;
                          const uint64_t x = uint64_t(origin[2]) + k % links.mx;
                          Signs signs(seed, uint64_t(origin[0] + links.z), y << 32 | x,
                                      1 + links.z - links.fixed);
                          const double a = std::sqrt(std::max(w[k], 1e-30f));
                          const double c = w[k + count] / a;
                          const double d = std::sqrt(std::max(w[k + 2 * count] - c * c, 0.0));
                          const double e = signs.next(), f = signs.next();
                          const double fy = a * e, fx = c * e + d * f;
                          here.add(moving, fy), here.add(moving + plane, fx);
                          there.add(fixed, -fy), there.add(fixed + plane, -fx);
                      });
        }
        for (int z = 0; z < grid.nz; ++z) hold(fine_, z, forces + z * section);
    }

    void sheet_forces(uint64_t seed, const int32_t* origin, double* forces) {
        const size_t section = fine_.grid.section();
        std::memset(forces, 0, fine_.grid.size() * sizeof(double));
        for (int z = 0; z < fine_.grid.nz; ++z) {
            add_random_stress(z, seed, origin, forces + z * section);
            hold(fine_, z, forces + z * section);
        }
    }

   private:
    static void precision(const PairInput& pair, size_t k, float* p) {
        const size_t n = size_t(pair.my) * pair.mx;
        for (int c = 0; c < 3; ++c) p[c] = pair.precision ? pair.precision[k + c * n] : c != 1;
    }

    void evaluate_pair(size_t n, const double* u, double* gradient, bool to_moving, bool to_fixed,
                       double huber, Weights mode, double* parts) {
        const PairInput& pair = pairs_[n];
        const Links& links = fine_.links[n];
        const Grid& grid = fine_.grid;
        const size_t plane = grid.plane(), section = grid.section(), count = links.count();
        float* kept = weights_.data() + (links.weight - weights_.data());
        double energy = 0;
        const double *moving = u + links.z * section, *fixed = u + links.fixed * section;
        each_link(links, pair.weight, grid, fine_.px_per_node,
                  [&](size_t k, const auto& here, const Corners& there) {
            const double weight = pair.weight[k];
            double ry, rx;
            difference(here, there, plane, moving, fixed, ry, rx);
            ry -= links.match[k], rx -= links.match[k + count];
            float p[3];
            precision(pair, k, p);
            const double py = p[0] * ry + p[1] * rx, px = p[1] * ry + p[2] * rx;
            const double length = std::sqrt(std::max(ry * py + rx * px, 0.0));
            const double w = length > huber ? weight * huber / length : weight;
            if (to_moving) {
                energy += length > huber ? weight * huber * (length - huber / 2)
                                         : weight * length * length / 2;
                if (mode != Weights::kKeep) {
                    const bool is_bent = mode == Weights::kNewton && length > huber;
                    const double bend = is_bent ? w / (length * length) : 0;
                    // Never 0, which would say that there is no match.
                    kept[k] = float(std::max(w * p[0] - bend * py * py, kLeast * w * p[0]));
                    kept[k + count] = float(w * p[1] - bend * py * px);
                    kept[k + 2 * count] =
                        float(std::max(w * p[2] - bend * px * px, kLeast * w * p[2]));
                }
            }
            if (!gradient) return;
            double *fu = gradient + links.z * section, *fv = gradient + links.fixed * section;
            if (to_moving) here.add(fu, w * py), here.add(fu + plane, w * px);
            if (to_fixed) there.add(fv, -w * py), there.add(fv + plane, -w * px);
        });
        if (to_moving) parts[3 * pair.z] += energy;
    }

    void add_random_stress(int z, uint64_t seed, const int32_t* origin, double* to) {
        const Grid& grid = fine_.grid;
        const double nu = fine_.elasticity.nu, e = fine_.elasticity.stretch();
        const double shear = std::sqrt(fine_.elasticity.shear());
        const double twist = std::sqrt(fine_.elasticity.twist());
        const double root = std::sqrt(e), rest = std::sqrt(e * (1 - nu * nu));
        const float* stiffness = fine_.stiffness + z * grid.cells();
        const float* mass = fine_.mass + z * grid.plane();
        for (int i = 0; i < grid.ny; ++i)
            for (int j = 0; j < grid.nx; ++j) {
                const size_t k = size_t(i) * grid.nx + j;
                Signs signs(seed, uint64_t(origin[0] + z),
                            uint64_t(origin[1] + i) << 32 | uint64_t(origin[2] + j), 0);
                double *y = to + k, *x = y + grid.plane();
                const double weak = std::sqrt(double(mass[k]));
                *y += weak * signs.next(), *x += weak * signs.next();
                if (i + 1 == grid.ny || j + 1 == grid.nx) continue;
                const double amount = std::sqrt(double(*stiffness++));
                const double first = signs.next(), second = signs.next();
                const double syy = amount * root * first / 2;
                const double sxx = amount * (nu * root * first + rest * second) / 2;
                const double s = amount * shear * signs.next() / 2;
                const double ty = amount * twist * signs.next();
                const double tx = amount * twist * signs.next();
                y[0] += ty - syy - s, y[1] += s - syy - ty;
                y[grid.nx] += syy - s - ty, y[grid.nx + 1] += syy + s + ty;
                x[0] += tx - s - sxx, x[1] += sxx - s - tx;
                x[grid.nx] += s - sxx - tx, x[grid.nx + 1] += s + sxx + tx;
            }
    }

    template <class Work>
    void each(Work&& work) {
        const size_t section = fine_.grid.section();
        threads_.over(fine_.grid.nz, fine_.grid.size(), [&](int first, int last) {
            for (size_t k = first * section; k < last * section; ++k) work(k);
        });
    }

    // Summed by section, then over them: the same bits on any number of threads.
    template <class A, class B>
    double dot(const A* a, const B* b) {
        const size_t section = fine_.grid.section();
        std::vector<double> sums(fine_.grid.nz, 0);
        threads_.over(fine_.grid.nz, fine_.grid.size(), [&](int first, int last) {
            for (int z = first; z < last; ++z) {
                double lanes[8] = {};
                size_t k = z * section;
                const size_t end = k + section;
                for (; k + 8 <= end; k += 8)
                    for (int i = 0; i < 8; ++i) lanes[i] += double(a[k + i]) * b[k + i];
                for (; k < end; ++k) lanes[0] += double(a[k]) * b[k];
                for (double lane : lanes) sums[z] += lane;
            }
        });
        double sum = 0;
        for (double part : sums) sum += part;
        return sum;
    }

    Level fine_;
    Ranges threads_;
    std::vector<PairInput> pairs_;
    std::vector<float> weights_;
    Multigrid multigrid_;
};

}  // namespace relax
}  // namespace PETALIGN_ISA
}  // namespace petalign

// ------------------------------------------------------------ what Python calls

using namespace petalign::PETALIGN_ISA::relax;

// Null when memory ran out.
PETALIGN_API void* petalign_stack_new(const StackInput* input) try {
    return new Stack(*input);
} catch (const std::exception&) {
    return nullptr;
}

PETALIGN_API void petalign_stack_delete(void* stack) { delete static_cast<Stack*>(stack); }

// All that follow return a count or 0, and -1 when memory ran out.
PETALIGN_API int petalign_stack_evaluate(void* stack, const double* u, double* gradient,
                                         double* energies, double huber_px, int weights) try {
    static_cast<Stack*>(stack)->evaluate(u, gradient, energies, huber_px, Weights(weights));
    return 0;
} catch (const std::exception&) {
    return -1;
}

// Builds the hierarchy for the present weights; returns the number of levels.
PETALIGN_API int petalign_stack_prepare(void* stack) try {
    static_cast<Stack*>(stack)->prepare();
    return int(static_cast<Stack*>(stack)->multigrid().levels().size());
} catch (const std::exception&) {
    return -1;
}

PETALIGN_API int petalign_stack_solve(void* stack, const double* b, double* x, double tolerance,
                                      int max_steps, double* residuals) try {
    return static_cast<Stack*>(stack)->solve(b, x, tolerance, max_steps, residuals);
} catch (const std::exception&) {
    return -1;
}

PETALIGN_API int petalign_stack_apply(void* stack, const double* x, double* y) try {
    auto& self = *static_cast<Stack*>(stack);
    apply(self.fine(), self.threads(), x, y);
    return 0;
} catch (const std::exception&) {
    return -1;
}

PETALIGN_API int petalign_stack_cycle(void* stack, const double* r, float* x) try {
    auto& self = *static_cast<Stack*>(stack);
    self.precondition(r);
    std::copy(self.fine().x.begin(), self.fine().x.end(), x);
    return 0;
} catch (const std::exception&) {
    return -1;
}

PETALIGN_API int petalign_stack_link_forces(void* stack, uint64_t seed, const int32_t* origin,
                                            double* forces) {
    static_cast<Stack*>(stack)->link_forces(seed, origin, forces);
    return 0;
}

PETALIGN_API int petalign_stack_sheet_forces(void* stack, uint64_t seed, const int32_t* origin,
                                             double* forces) {
    static_cast<Stack*>(stack)->sheet_forces(seed, origin, forces);
    return 0;
}

PETALIGN_API int petalign_stack_information(void* stack, double* diagonal) {
    static_cast<Stack*>(stack)->information(diagonal);
    return 0;
}

// Builds `halvings` coarser levels for the present weights, all axes halved in each; no V-cycle.
PETALIGN_API int petalign_stack_condense(void* stack, int halvings) try {
    auto& self = *static_cast<Stack*>(stack);
    self.multigrid().condense(self.fine(), halvings);
    return 0;
} catch (const std::exception&) {
    return -1;
}

// The grid (nz, ny, nx) of a level; returns how many pairs of sections are linked there.
PETALIGN_API int petalign_stack_level(void* stack, int depth, int32_t* grid) {
    const Level& level = *static_cast<Stack*>(stack)->multigrid().levels()[depth];
    grid[0] = level.grid.nz, grid[1] = level.grid.ny, grid[2] = level.grid.nx;
    return int(level.links.size());
}

// A level's stiffness (nz, ny - 1, nx - 1) and mass (nz, ny, nx).
PETALIGN_API int petalign_stack_sheets(void* stack, int depth, float* stiffness, float* mass) {
    const Level& level = *static_cast<Stack*>(stack)->multigrid().levels()[depth];
    const Grid& grid = level.grid;
    std::copy(level.stiffness, level.stiffness + grid.nz * grid.cells(), stiffness);
    std::copy(level.mass, level.mass + grid.nz * grid.plane(), mass);
    return 0;
}

// A pair of a coarse level: its two sections; weights (3) and match (2) at the nodes, (5, ny, nx).
PETALIGN_API int petalign_stack_links(void* stack, int depth, int pair, int32_t* sections,
                                      float* values) {
    const Links& links = static_cast<Stack*>(stack)->multigrid().levels()[depth]->links[pair];
    sections[0] = links.z, sections[1] = links.fixed;
    std::copy(links.weight, links.weight + 3 * links.count(), values);
    std::copy(links.match, links.match + 2 * links.count(), values + 3 * links.count());
    return 0;
}
