// The arrays of a caller as the records of the mapping search, checked, and the search with feature maps where they are best held.
#pragma once

#include <cstddef>
#include <string>

#include "mapping_search.h"

namespace mapping {

// Bits of the masks of operands: those that live in the registers, those that are resident.
enum { kKeepInputs = 1, kKeepWeights = 2, kKeepOutputs = 4 };
// Columns of the integer hardware array, of the real one, and of the per-level one; dse_kernels/mapping.py fills them.
enum {
    kCores,
    kRows,
    kColumns,
    kKind,
    kFlow,
    kRegisterWords,
    kKeep,
    kSplitAxes,
    kSplitK,
    kFactorsFirst,
    kRefills,
    kIntColumns
};
enum { kMacPj, kRegisterReadPj, kRegisterWritePj, kWordBits, kRealColumns };
enum { kInputBits, kWeightBits, kOutputBits, kOperandColumns };
enum { kBatch, kM, kN, kK, kSpread, kPixels, kChannels, kTaps, kOverlap, kStep, kResident, kHeldBits, kShapeColumns };
enum { kCapInput, kCapWeight, kCapOutput, kCapTotal, kReadBw, kWriteBw, kReadPj, kWritePj, kPerCore, kPooled, kBuffers, kSharedBus, kLevelColumns };


// Raises std::invalid_argument (ValueError in Python) with what is wrong.
void require(bool fine, const std::string &what);
// Everything that the search relies on, so that no array of a caller makes it divide by zero, count past int64 or read beyond.
void check_shape(const int64_t *row, const double *operand, size_t at);
void check_point(const int64_t *i, const double *r, const double *levels, size_t level_count, size_t at);
// What stays in the last memory below DRAM while a shape runs needs one such memory of all cores, with one capacity for all.
void check_resident(const Hardware &hw, size_t level_count);

Hardware hardware_of(const int64_t *i, const double *r, const double *levels, size_t level_count);
Shape shape_of(const int64_t *row, const double *operand, int levels);

// Usable words of the last memory below DRAM of which `held_bits` are taken.
double room_beside(const Memory &memory, int levels, double held_bits);

// The best mapping of a shape on the points of a plan, where a convolution holds its map in the memories where that is best.
// `from`: of each point the innermost of these (kMaxLevels: none).
void search_shape(const Plan &plan, const Shape &shape, Searcher &searcher, std::vector<Found> &found, std::vector<int> *from = nullptr);

}  // namespace mapping
