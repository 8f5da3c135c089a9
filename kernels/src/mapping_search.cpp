#include "mapping_bundles.h"
#include "mapping_tiles.h"

namespace mapping {

Searcher &searcher(int levels) {
    // One of each kind a thread: what they have allocated is used again from shape to shape and from call to call.
    thread_local Search<1> one;
    thread_local Search<2> two;
    thread_local Search<3> three;
    thread_local Search<4> four;
    thread_local Search<5> five;
    thread_local Search<6> six;
    Searcher *const all[] = {&one, &two, &three, &four, &five, &six};
    return *all[levels - 1];
}

}  // namespace mapping
