// The attention kernels compiled for AVX-512 with bfloat16 and byte dot products; chosen at run time by attention_work.cpp.
#if defined(DSE_ATTENTION_X86)
#include "attention_int8.h"

namespace attention {

const Functions &avx512_bf16_functions() {
    static const Functions functions{"avx512_bf16", run_block<float>, run_block<uint16_t>, run_int8_block, quantise_query};
    return functions;
}

}  // namespace attention
#endif
