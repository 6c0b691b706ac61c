// What Python calls is exported under its plain name; everything else stays inside the library.
#pragma once

#define PETALIGN_API extern "C" __attribute__((visibility("default")))
