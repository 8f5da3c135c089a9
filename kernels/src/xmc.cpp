// Python binding of the tree: build its parts, open it from bytes, search it.
#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include "xmc_build.h"
#include "xmc_search.h"

namespace nb = nanobind;

namespace {

template <typename T, int N>
using In = nb::ndarray<const T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
template <typename T, int N>
using Out = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

constexpr uint64_t kBlock = 1024;  // queries that share a pass over the chunks
constexpr uint32_t kMaxKept = 1u << 20;

template <typename T>
nb::object array_of(std::vector<T> &&v) {
    auto *held = new std::vector<T>(std::move(v));
    nb::capsule owner(held, [](void *p) noexcept { delete static_cast<std::vector<T> *>(p); });
    const size_t shape[1] = {held->size()};
    return nb::cast(nb::ndarray<nb::numpy, T>(held->data(), 1, shape, owner));
}

// row: int32, value: float32, as bytes, since those of a mapped archive stand at no multiple of four.
nb::tuple build(In<int64_t, 1> start, In<uint8_t, 1> row, In<uint8_t, 1> value, uint64_t rows, In<uint32_t, 1> order,
                In<uint32_t, 1> chunk_first, uint32_t values, uint32_t hash_bits, float bias, bool has_bias, uint64_t position_start,
                uint64_t blob_start) {
    if (start.shape(0) < 1 || chunk_first.shape(0) < 1 || row.shape(0) != value.shape(0) || row.shape(0) % 4 != 0)
        throw nb::value_error("build: indptr and chunk_first hold one more than they count, and indices as many as data");
    if (values > xmc::kInt8 || hash_bits < 1 || hash_bits > 32) throw nb::value_error("build: values is 0..2 and hash_bits 1..32");
    const xmc::Columns columns{start.data(),       row.data(),       value.data(), rows,
                               start.shape(0) - 1, row.shape(0) / 4, order.data(), order.shape(0)};
    const xmc::Layout layout{values, hash_bits, has_bias, bias, position_start, blob_start};
    xmc::Built built;
    {
        nb::gil_scoped_release release;
        built = xmc::build(columns, layout, chunk_first.data(), chunk_first.shape(0) - 1);
    }
    std::vector<uint8_t> chunks(built.chunks.size() * sizeof(xmc::Chunk));
    if (!chunks.empty()) std::memcpy(chunks.data(), built.chunks.data(), chunks.size());
    return nb::make_tuple(array_of(std::move(chunks)), array_of(std::move(built.bias)), array_of(std::move(built.scale)),
                          array_of(std::move(built.blob)));
}

nb::tuple check_columns(In<int64_t, 1> start, In<uint8_t, 1> row, In<uint8_t, 1> value, uint64_t rows, bool ordered) {
    const uint64_t nonzeros = row.shape(0) / 4;
    if (start.shape(0) < 1 || row.shape(0) != value.shape(0) || row.shape(0) % 4 != 0)
        throw nb::value_error("indptr holds one more than the columns, and indices as many as data");
    const int64_t *at = start.data();
    if (at[0] != 0 || at[start.shape(0) - 1] != static_cast<int64_t>(nonzeros) || !std::is_sorted(at, at + start.shape(0)))
        throw nb::value_error("indptr does not rise from 0 to the number of indices");
    xmc::Fault found;
    {
        nb::gil_scoped_release release;
        found = xmc::check_columns({at, row.data(), value.data(), rows, start.shape(0) - 1, nonzeros, nullptr, 0}, ordered);
    }
    return nb::make_tuple(static_cast<int>(found.kind), found.column);
}

// One scratch a thread, kept between calls.
xmc::Workspace &workspace() {
    thread_local xmc::Workspace kept;
    return kept;
}

class Tree {
  public:
    explicit Tree(In<uint8_t, 1> bytes) : bytes_(bytes), model_(aligned(bytes), bytes.shape(0)) {}

    void predict(In<int64_t, 1> start, In<int32_t, 1> feature, In<float, 1> value, uint32_t beam, uint32_t topk, uint32_t threads,
                 std::optional<std::string> post, Out<int32_t, 2> labels, Out<float, 2> scores) const {
        const xmc::Rows x = rows(start, feature, value);
        xmc::PostProcessor chosen;
        const xmc::Options options = read_options(beam, topk, post, chosen);
        if (labels.shape(0) != x.rows || scores.shape(0) != x.rows || labels.shape(1) != topk || scores.shape(1) != topk)
            throw nb::value_error("labels and scores are arrays of (queries, topk)");
        nb::gil_scoped_release release;
        xmc::check_queries(model_, x, feature.shape(0));
        if (x.rows == 0) return;
        const uint64_t workers = std::max<uint64_t>(1, std::min<uint64_t>(threads, x.rows));
        const uint64_t block = std::min<uint64_t>(kBlock, (x.rows + workers - 1) / workers);
        std::atomic<uint64_t> next{0};
        std::atomic<bool> sound{true};
        std::atomic<bool> failed{false};
        const auto work = [&](xmc::Workspace &scratch) {
            try {
                for (uint64_t begin; (begin = next.fetch_add(block)) < x.rows;) {
                    const uint64_t end = std::min(begin + block, x.rows);
                    if (!scratch.search(model_, x, begin, end, options, labels.data() + begin * topk, scores.data() + begin * topk))
                        sound = false;
                }
            } catch (const std::exception &) {
                failed = true;
            }
        };
        std::vector<std::thread> pool;
        for (uint64_t t = 1; t < workers; ++t)
            pool.emplace_back([&] {
                xmc::Workspace scratch;
                work(scratch);
            });
        work(workspace());
        for (std::thread &t : pool) t.join();
        if (failed) throw std::bad_alloc();
        require(sound);
    }

    void predict_one(In<int32_t, 1> feature, In<float, 1> value, uint32_t beam, uint32_t topk, std::optional<std::string> post,
                     Out<int32_t, 1> labels, Out<float, 1> scores) const {
        if (feature.shape(0) != value.shape(0)) throw nb::value_error("X: as many values as indices are needed");
        if (labels.shape(0) != topk || scores.shape(0) != topk) throw nb::value_error("out: labels and scores are arrays of (topk,)");
        const int64_t start[2] = {0, static_cast<int64_t>(feature.shape(0))};
        const xmc::Rows x{start, feature.data(), value.data(), 1};
        xmc::PostProcessor chosen;
        const xmc::Options options = read_options(beam, topk, post, chosen);
        nb::gil_scoped_release release;
        xmc::check_queries(model_, x, feature.shape(0));
        require(workspace().search(model_, x, 0, 1, options, labels.data(), scores.data()));
    }

    // counts: (queries, levels, columns).
    void count(In<int64_t, 1> start, In<int32_t, 1> feature, In<float, 1> value, uint32_t beam, uint32_t topk,
               std::optional<std::string> post, Out<int64_t, 3> counts) const {
        const xmc::Rows x = rows(start, feature, value);
        xmc::PostProcessor chosen;
        const xmc::Options options = read_options(beam, topk, post, chosen);
        const size_t levels = model_.levels.size();
        if (counts.shape(0) != x.rows || counts.shape(1) != levels || counts.shape(2) != xmc::kCountColumns)
            throw nb::value_error("counts is an array of (queries, levels, 8)");
        nb::gil_scoped_release release;
        xmc::check_queries(model_, x, feature.shape(0));
        std::vector<uint32_t> hashed;
        std::vector<xmc::Counts> of_query(levels);
        bool sound = true;
        for (uint64_t r = 0; r < x.rows; ++r) {
            hashed.clear();
            for (int64_t i = x.start[r]; i < x.start[r + 1]; ++i)
                hashed.push_back((static_cast<uint32_t>(x.feature[i]) * xmc::kMultiplier) & xmc::hash_mask(model_.head.hash_bits));
            sound &= xmc::count_query(model_, {hashed.data(), x.value + x.start[r], static_cast<uint32_t>(hashed.size())}, options,
                                      of_query.data());
            int64_t *to = counts.data() + r * levels * xmc::kCountColumns;
            for (const xmc::Counts &c : of_query)
                for (const int64_t v : {c.macs, c.row_probes, c.row_hits, c.chunks, c.labels_scored, c.bytes, c.unique_lines, c.dependent_depth})
                    *to++ = v;
        }
        require(sound);
    }

  private:
    static const uint8_t *aligned(const In<uint8_t, 1> &bytes) {
        if (reinterpret_cast<uintptr_t>(bytes.data()) % 64 != 0) throw nb::value_error("a tree's bytes start at a multiple of 64");
        return bytes.data();
    }

    static void require(bool sound) {
        if (!sound) throw std::invalid_argument("weights: offsets, columns or labels leave their place (the file is corrupt)");
    }

    static xmc::Rows rows(const In<int64_t, 1> &start, const In<int32_t, 1> &feature, const In<float, 1> &value) {
        if (start.shape(0) < 1 || feature.shape(0) != value.shape(0))
            throw nb::value_error("X: indptr holds one more than the rows, and indices as many as data");
        return {start.data(), feature.data(), value.data(), start.shape(0) - 1};
    }

    static xmc::Options read_options(uint32_t beam, uint32_t topk, const std::optional<std::string> &post, xmc::PostProcessor &chosen) {
        if (topk < 1 || topk > kMaxKept || beam > kMaxKept) throw nb::value_error("beam and topk are in 1..1048576");
        if (!post) return {beam, topk, nullptr};
        chosen = xmc::PostProcessor::of(*post);
        return {beam, topk, &chosen};
    }

    In<uint8_t, 1> bytes_;
    xmc::Model model_;
};

}  // namespace

void bind_xmc(nb::module_ &m) {
    m.def("xmc_build", &build, nb::arg("start").noconvert(), nb::arg("row").noconvert(), nb::arg("value").noconvert(), nb::arg("rows"), nb::arg("order").noconvert(),
          nb::arg("chunk_first").noconvert(), nb::arg("values"), nb::arg("hash_bits"), nb::arg("bias"), nb::arg("has_bias"),
          nb::arg("position_start"), nb::arg("blob_start"), "Columns of weights into chunks; see dse_kernels.xmc.");
    m.def("xmc_check_columns", &check_columns, nb::arg("start").noconvert(), nb::arg("row").noconvert(), nb::arg("value").noconvert(), nb::arg("rows"), nb::arg("ordered"),
          "The first fault of a CSC matrix as (kind, column): 0 none, 1 a row index outside, 2 a value that is not finite, 3 rows unsorted or duplicated.");
    m.def("xmc_check_post_processor", [](const std::string &name) { xmc::PostProcessor::of(name); }, nb::arg("name"));
    nb::class_<Tree>(m, "XmcTree")
        .def(nb::init<In<uint8_t, 1>>(), nb::arg("bytes").noconvert())
        .def("predict", &Tree::predict, nb::arg("start").noconvert(), nb::arg("feature").noconvert(), nb::arg("value").noconvert(), nb::arg("beam"), nb::arg("topk"),
             nb::arg("threads"), nb::arg("post").none(), nb::arg("labels").noconvert(), nb::arg("scores").noconvert())
        .def("predict_one", &Tree::predict_one, nb::arg("feature").noconvert(), nb::arg("value").noconvert(), nb::arg("beam"), nb::arg("topk"),
             nb::arg("post").none(), nb::arg("labels").noconvert(), nb::arg("scores").noconvert())
        .def("count", &Tree::count, nb::arg("start").noconvert(), nb::arg("feature").noconvert(), nb::arg("value").noconvert(), nb::arg("beam"), nb::arg("topk"),
             nb::arg("post").none(), nb::arg("counts").noconvert());
}
