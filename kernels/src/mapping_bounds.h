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

    // How many tiles inside (of `tile` elements, `count` of them cover a core's share) fit side by side along d, the extents of the
    // other two dimensions given; 0 if not even one.
    int64_t most_tiles(int level, int d, const double (&e)[3], int64_t count, int64_t tile) const;
};

// Least energy and words across the boundaries outside the innermost memory, whatever happens inside.
struct Floor {
    double pj[kMaxLevels], reads[kMaxLevels], writes[kMaxLevels];
};
Floor floor_of(const Geometry &geometry, int levels);

// One choice inside the innermost memory with everything outside crossing once: cycles, words, and what energies multiply.
struct Terms {
    double compute, reads, writes;
    double macs, read_words, write_words, register_reads, register_writes;
};
Terms terms_of(const Shape &shape, const Share &share, const Spatial &spatial, const Triple &tiles, const Hardware &hw, int levels);

}  // namespace mapping
