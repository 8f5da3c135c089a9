// What can happen inside the innermost memory: splits over cores, unrolling over the array, tiles in the registers.
#pragma once

#include "mapping_model.h"

namespace mapping {

// All ways to split the work over the cores along m, n, k and batch whose product is the number of cores.
std::vector<Split> splits_of(const Core &core, const Shape &shape);

// One unrolling of one split with one resting operand; the register tiles are listed when they are needed.
struct Block {
    int split;  // index in the list of splits
    Triple unroll;
    int64_t stationary;
    Triple least_tiles;  // per dimension the fewest array tiles of a core that any register tile of the block gives
    Triple largest_registers;
};

void blocks_of(const Core &core, const Shape &shape, const std::vector<Split> &splits, std::vector<Block> &out);

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

// The register tiles of a block: those of `listed`, or all pairs along dimensions x and y that fit together.
struct RegisterTiles {
    bool ready = false;
    int x = 0, y = 0;
    Triple passes;
    std::vector<RegisterStep> along_x, along_y;  // ascending
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
void register_tiles(const Core &core, const Shape &shape, const std::vector<Split> &splits, const Block &block,
                    RegisterTiles &out);
// Whether a unit holds a x b elements of the resting operand and what streams past them.
inline bool registers_hold(const Core &core, int64_t a, int64_t b) {
    return (a == 1 && b == 1) || a * b + a + b <= core.register_words;
}

}  // namespace mapping
