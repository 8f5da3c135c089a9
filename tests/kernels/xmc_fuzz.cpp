// Opens a tree file over and over with some of its bytes changed, and answers queries that are partly broken too. Built with sanitizers by
// test_xmc_files.py: whatever is wrong must end in an exception or in an answer. Prints how often it opened, answered and refused.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>

#include "xmc_build.h"
#include "xmc_search.h"

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    std::ifstream file(argv[1], std::ios::binary);
    const std::vector<char> whole((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    std::mt19937 rng(1);
    long opened = 0, answered = 0, refused = 0;
    const size_t room = (whole.size() + 63) / 64 * 64;
    for (int round = 0; round < std::atoi(argv[2]); ++round) {
        auto *bytes = static_cast<uint8_t *>(std::aligned_alloc(64, room));
        const size_t used = round % 10 == 0 ? rng() % whole.size() : whole.size();
        std::memcpy(bytes, whole.data(), whole.size());
        const int changes = static_cast<int>(rng() % 6);
        for (int c = 0; c < changes; ++c) {
            const size_t limit = rng() % 2 ? whole.size() : 512;
            bytes[rng() % limit] = rng() % 2 ? static_cast<uint8_t>(rng()) : static_cast<uint8_t>(rng() % 2 ? 255 : 0);
        }
        // A copy of exactly the used bytes, so that a read behind them is seen.
        auto *exact = static_cast<uint8_t *>(std::aligned_alloc(64, (used + 63) / 64 * 64 + 64));
        std::memcpy(exact, bytes, used);
        try {
            const xmc::Model model(exact, used);
            ++opened;
            const uint32_t features = static_cast<uint32_t>(std::min<uint64_t>(model.head.features, 1000));
            std::vector<int64_t> start{0};
            std::vector<int32_t> feature;
            std::vector<float> value;
            for (int q = 0; q < 4; ++q) {
                for (uint32_t f = 0; f < features; ++f)
                    if (rng() % 4 == 0) {
                        feature.push_back(static_cast<int32_t>(rng() % 400 == 0 ? rng() : f));
                        value.push_back(rng() % 400 == 0 ? std::numeric_limits<float>::quiet_NaN() : static_cast<float>(rng() % 100) / 50.0f);
                    }
                start.push_back(static_cast<int64_t>(feature.size()));
            }
            const xmc::Rows x{start.data(), feature.data(), value.data(), 4};
            xmc::check_queries(model, x, feature.size());
            const uint32_t topk = 1 + rng() % 50;
            const xmc::Options options{static_cast<uint32_t>(rng() % 20), topk, nullptr};
            std::vector<int32_t> labels(4 * topk);
            std::vector<float> scores(4 * topk);
            xmc::Workspace scratch;
            bool sound = scratch.search(model, x, 0, 4, options, labels.data(), scores.data());
            std::vector<uint32_t> hashed;
            for (int64_t i = start[1]; i < start[2]; ++i)
                hashed.push_back((static_cast<uint32_t>(feature[i]) * xmc::kMultiplier) & xmc::hash_mask(model.head.hash_bits));
            std::vector<xmc::Counts> counts(model.levels.size());
            sound &= xmc::count_query(model, {hashed.data(), value.data() + start[1], static_cast<uint32_t>(hashed.size())}, options, counts.data());
            ++(sound ? answered : refused);
        } catch (const std::exception &) {
            ++refused;
        }
        std::free(exact);
        std::free(bytes);
        // The builder, with columns that are partly broken.
        std::vector<int64_t> indptr{0};
        std::vector<int32_t> rows;
        std::vector<float> weights;
        for (int c = 0; c < 12; ++c) {
            for (int r = 0; r < 40; ++r)
                if (rng() % 3 == 0) {
                    rows.push_back(rng() % 300 == 0 ? static_cast<int32_t>(rng()) : r);
                    weights.push_back(static_cast<float>(static_cast<int>(rng() % 200) - 100) / 30.0f);
                }
            indptr.push_back(rng() % 300 == 0 ? static_cast<int64_t>(rng() % 4000) - 100 : static_cast<int64_t>(rows.size()));
        }
        // At an odd address, as in a mapped archive, and of exactly their bytes.
        const auto odd = [](const auto &held) {
            std::vector<uint8_t> bytes(1 + 4 * held.size());
            if (!held.empty()) std::memcpy(bytes.data() + 1, held.data(), 4 * held.size());
            return bytes;
        };
        const std::vector<uint8_t> row_bytes = odd(rows), weight_bytes = odd(weights);
        const uint8_t *row = row_bytes.data() + 1, *weight = weight_bytes.data() + 1;
        if (std::is_sorted(indptr.begin(), indptr.end()) && indptr.front() == 0 && indptr.back() == static_cast<int64_t>(rows.size())) {
            const xmc::Fault found = xmc::check_columns({indptr.data(), row, weight, 41, 12, rows.size(), nullptr, 0}, true);
            if (found.column >= 12) return 3;
        }
        std::vector<uint32_t> order(12), first{0, 5, 12};
        for (uint32_t i = 0; i < 12; ++i) order[i] = rng() % 100 == 0 ? rng() % 20 : i;
        try {
            xmc::build({indptr.data(), row, weight, 41, 12, rows.size(), order.data(), 12},
                       {static_cast<uint32_t>(rng() % 3), 6, true, 1.0f, 0, 0}, first.data(), 2);
            ++answered;
        } catch (const std::exception &) {
            ++refused;
        }
    }
    std::printf("%ld %ld %ld\n", opened, answered, refused);
    return 0;
}
