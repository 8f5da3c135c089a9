// What can happen inside the innermost memory: splits over cores, unrolling over the array, tiles in the registers.
#pragma once

#include <deque>

#include "mapping_model.h"

namespace mapping {

// All ways to split the work over the cores along m, n, k and batch whose product is the number of cores.
std::vector<Split> splits_of(const Core &core, const Shape &shape);

// One unrolling of one split with one resting operand; the register tiles are listed when they are needed.
struct Block {
    int split;  // index in the list of splits
    Triple unroll;
    int64_t spread;  // units along the batch
    int64_t stationary;
    Triple passes;   // of the array over a core's share, one element a unit
    double compute;  // cycles of the array, the streamed dimension in one piece
    // Whatever the register tile, at least: fetches over boundary 0 and units that hold the same word.
    double fetches[3], lanes[3];
};

// Units of an array along m, n, k and the batch.
using Units = std::array<int64_t, 4>;

// Unrollings of a dot-product array; those along the batch only where its entries may lie side by side.
std::vector<Units> unrolls_of(const Core &core, bool spread);

void blocks_of(const Core &core, const Shape &shape, const std::vector<Split> &splits, const std::vector<Share> &shares,
               const std::vector<Units> &unrolls, std::vector<Block> &out);

// A register tile of a block and the number of array tiles of a core's share along m, n, k that it gives.
struct RegisterTile {
    Triple registers, tiles;
};

// Elements of one array unit along a dimension, the number of array tiles that this gives, and how many units then hold the
// same word.
struct RegisterStep {
    int64_t elements;
    double tiles, lanes;
};

// Steps along one dimension, ascending. Many blocks share them: they depend on the share of a core and the unrolling alone.
class Ladders {
 public:
    using Steps = std::vector<RegisterStep>;
    void clear() { used_ = 0; }
    const Steps *find(int64_t core, int64_t unroll, int64_t passes, int64_t limit);

 private:
    struct Ladder {
        int64_t core, unroll;
        Steps steps;
    };
    std::deque<Ladder> ladders_;  // pointers into it stay valid; what was allocated is used again
    size_t used_ = 0;
};

// The register tiles of a block: those of `listed`, or all pairs along dimensions x and y that fit together.
struct RegisterTiles {
    bool ready = false;
    int x = 0, y = 0;
    Triple passes;
    const Ladders::Steps *along_x = nullptr, *along_y = nullptr;  // null where all tiles are listed
    std::vector<RegisterTile> listed;

    RegisterTile pair(const RegisterStep &a, const RegisterStep &b) const {
        RegisterTile t{{1, 1, 1}, passes};
        t.registers[x] = a.elements;
        t.registers[y] = b.elements;
        t.tiles[x] = static_cast<int64_t>(a.tiles);
        t.tiles[y] = static_cast<int64_t>(b.tiles);
        return t;
    }
};
void register_tiles(const Core &core, const Shape &shape, const std::vector<Split> &splits, const Share &share,
                    const Block &block, Ladders &ladders, RegisterTiles &out);
// Whether a unit holds a x b elements of the resting operand and what streams past them.
inline bool registers_hold(const Core &core, int64_t a, int64_t b) {
    return (a == 1 && b == 1) || a * b + a + b <= core.register_words;
}

}  // namespace mapping
