#include "core/plant.h"

#ifdef AQ_PLANTS
const char *plant_active;
#else
typedef int plant_none; /* ISO C wants a declaration */
#endif
