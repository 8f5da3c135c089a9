// The attention kernels compiled for any machine; chosen at run time by attention_work.cpp.
#include "attention_int8.h"

namespace attention {

const Functions &plain_functions() {
    static const Functions functions{"plain", run_block<float>, run_block<uint16_t>, run_int8_block, quantise_query};
    return functions;
}

}  // namespace attention
