// The attention kernels compiled for AVX2 and FMA; chosen at run time by attention_work.cpp.
#if defined(DSE_ATTENTION_X86)
#include "attention_int8.h"

namespace attention {

const Functions &avx2_functions() {
    static const Functions functions{"avx2", run_block<float>, run_block<uint16_t>, run_int8_block, quantise_query};
    return functions;
}

}  // namespace attention
#endif
