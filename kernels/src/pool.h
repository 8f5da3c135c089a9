// Threads that are kept between calls: started when they are first asked for, joined when the process ends.
#pragma once

namespace pool {

// Runs work(context, worker) for worker 0 in the calling thread and for up to threads - 1 others that come in time, and returns when all
// that came have returned. The work must share itself out (by a counter), since no other worker need ever come: a second caller at the
// same time, a process that may start no thread and one that is about to end do their work alone. Worker numbers differ and are below
// `threads`. Works in a child of fork, which starts threads of its own.
void run(int threads, void (*work)(void *context, int worker), void *context);

// How many threads are kept at present.
int kept_threads();

}  // namespace pool
