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
    Triple least_tiles;      // per dimension the fewest array tiles of a core that any register tile of the block gives
    Triple largest_registers;
};

std::vector<Block> blocks_of(const Core &core, const Shape &shape, const std::vector<Split> &splits);

// A register tile of a block and the number of array tiles of a core's share along m, n, k that it gives.
struct RegisterTile {
    Triple registers, tiles;
};

// The register tiles of a block: those of `listed`, or all pairs along dimensions x and y that fit together.
struct RegisterTiles {
    bool ready = false;
    int x = 0, y = 0;
    Triple passes;
    std::vector<int64_t> along_x, along_y;  // elements of a unit, ascending
    std::vector<RegisterTile> listed;

    RegisterTile pair(int64_t a, int64_t b) const {
        RegisterTile t{{1, 1, 1}, passes};
        t.registers[x] = a;
        t.registers[y] = b;
        t.tiles[x] = ceil_div(passes[x], a);
        t.tiles[y] = ceil_div(passes[y], b);
        return t;
    }
};
void register_tiles(const Core &core, const Shape &shape, const std::vector<Split> &splits, const Block &block, RegisterTiles &out);
bool registers_hold(const Core &core, int64_t a, int64_t b);  // a x b elements of the resting operand

}  // namespace mapping
