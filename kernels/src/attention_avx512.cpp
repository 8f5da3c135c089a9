// The attention kernels compiled for AVX-512; chosen at run time by attention_work.cpp.
#if defined(DSE_ATTENTION_X86)
#include "attention_int8.h"

namespace attention {

const Functions &avx512_functions() {
    static const Functions functions{"avx512", run_block<float>, run_block<uint16_t>, run_int8_block, quantise_query};
    return functions;
}

}  // namespace attention
#endif
