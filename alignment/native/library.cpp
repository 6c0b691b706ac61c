// What Python asks of the library as a whole.

#include "library.hpp"
#include "processor.hpp"
#include "vector.hpp"

// Digest of the sources that the library was built from.
PETALIGN_API const char* petalign_sources() { return PETALIGN_SOURCES; }

PETALIGN_API int petalign_widest() { return petalign::widest_vectors(); }

PETALIGN_API int petalign_lanes() { return petalign::PETALIGN_ISA::L; }
