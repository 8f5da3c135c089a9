// What fits where, and lower bounds: of the traffic that capacities allow, and of one choice inside the innermost memory.
#pragma once

#include "mapping_options.h"

namespace mapping {

// Sizes of tiles in the memories of one hardware point, for one shape and split.
struct Geometry {
    const Shape *shape = nullptr;
    const Share *share = nullptr;
    const Split *split = nullptr;
    const Hardware *hw = nullptr;

    Geometry() = default;
    Geometry(const Shape &a, const Share &b, const Split &c) : shape(&a), share(&b), split(&c) {}
    Geometry(const Geometry &g, const Hardware &h) : shape(g.shape), share(g.share), split(g.split), hw(&h) {}

    // Elements of a tile along d as the level holds them: the tiles of all cores side by side where the level is shared.
    double extent(int level, int d, int64_t elements) const {
        int64_t x = std::min(elements, share->core[d]);
        if (hw->memory.per_core[level] == 0.0) x = std::min(x * (*split)[d], shape->dim[d]);
        return static_cast<double>(x);
    }

    // How many tiles inside (of `tile` elements, `count` of them cover a core's share) fit side by side along d, the extents of
    // the other two dimensions given; 0 if not even one.
    int64_t most_tiles(int level, int d, const double (&e)[3], int64_t count, int64_t tile) const;
};

// Least energy and words across the boundaries outside the innermost memory, whatever happens inside.
struct Floor {
    double pj[kMaxLevels], reads[kMaxLevels], writes[kMaxLevels];
    double joint_pj[3];  // see joint_floor
};
// `joint`: with the joint floors, which take longer and pay where many points share them.
Floor floor_of(const Geometry &geometry, int levels, bool joint);

// Least energy of boundary 1 together with what operand `resting`, which rests in the array, fetches over boundary 0 beyond
// once: large tiles along its loop leave less room for the others.
double joint_floor(const Geometry &geometry, int levels, int resting);

// One choice inside the innermost memory with everything outside crossing once: cycles, words, and what energies multiply.
struct Terms {
    double compute, reads, writes;
    double read_words, write_words, register_reads, register_writes;
};

// What the choices of one block (same split, unroll and resting operand) have in common.
struct BlockTerms {
    const Share *share;
    Triple unroll;
    int64_t stationary;
    double compute, expansion, refill_reads, refill_writes;
    double keep[3], all[3], array[3],
        busy[3];  // kept in registers; words per fetch: charged, at the array, in the busiest instance
    double read_words, write_words, register_reads, register_writes;  // whatever the register tile
    Terms with(const Triple &registers, const Triple &tiles) const;
    Terms with(const double (&fetches)[3], const double (&lanes)[3]) const;
};
BlockTerms block_terms(const Shape &shape, const Share &share, const Split &split, const Block &block, const Hardware &hw,
                       int levels);

// Energy-delay product of the array and the innermost memory alone, one core doing all of the work, the best operand resting.
double inner_product(const Shape &shape, const Triple &unroll, const Triple &registers, const Hardware &hw);

}  // namespace mapping
