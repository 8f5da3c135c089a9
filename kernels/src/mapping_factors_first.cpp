#include "mapping_factors_first.h"

#include "mapping_bounds.h"

namespace mapping {

namespace {

// The best rank of all choices: it is always kept, whatever the limit.
double best_inner_product(const Shape &shape, const Hardware &hw) {
    double best = kInfinity;
    const std::vector<Split> splits = splits_of(hw.core, shape);
    std::vector<Share> shares;
    for (const Split &split : splits) shares.push_back(share_of(shape, split, hw.memory.word_bits));
    RegisterTiles tiles;
    Ladders ladders;
    std::vector<Block> blocks;
    blocks_of(hw.core, shape, splits, shares, unrolls_of(hw.core, shape.spread), blocks);
    for (const Block &b : blocks) {
        register_tiles(hw.core, shape, splits, shares[b.split], b, ladders, tiles);
        const auto offer = [&](const Triple &registers) {
            best = std::min(best, inner_product(shape, {splits[b.split], b.unroll, registers, b.stationary, b.spread}, hw));
        };
        for (const RegisterTile &t : tiles.listed) offer(t.registers);
        if (!tiles.along_x) continue;
        for (const RegisterStep &x : *tiles.along_x)
            for (const RegisterStep &y : *tiles.along_y)
                if (registers_hold(hw.core, x.elements, y.elements)) offer(tiles.pair(x, y).registers);
    }
    return best;
}

}  // namespace

FactorsFirst::FactorsFirst(std::vector<Hardware> points, int levels, int criterion, bool want_words)
    : points_(std::move(points)), levels_(levels), criterion_(criterion), want_words_(want_words) {
    if (points_.empty() || levels_ < 2) return;
    std::vector<Hardware> blind = points_;  // without bandwidths, and without DRAM: its level is not counted
    for (Hardware &hw : blind)
        for (int l = 0; l < kMaxLevels; ++l) hw.read_cycles[l] = hw.write_cycles[l] = 0.0;
    blind_ = make_plan(std::move(blind), levels_ - 1, criterion_);
}

void FactorsFirst::run(const Shape &shape, const std::vector<size_t> &at, std::vector<Found> &found) const {
    std::vector<Hardware> points = points_;
    std::vector<Found> got;
    if (criterion_ == kEnergyDelay && levels_ > 1) {
        searcher(levels_ - 1).run(blind_, shape, got);
        for (size_t i = 0; i < points.size(); ++i)
            if (got[i].feasible)
                points[i].inner_limit = std::max(got[i].cost.first * static_cast<double>(points[i].core.cores),
                                                 best_inner_product(shape, points[i]));
    }
    Plan plan = make_plan(std::move(points), levels_, criterion_);
    plan.want_words = want_words_;
    searcher(levels_).run(plan, shape, got);
    for (size_t i = 0; i < at.size(); ++i)
        if (got[i].feasible) found[at[i]] = got[i];
}

}  // namespace mapping
