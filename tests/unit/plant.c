/* Lets the unit tests be run with one planted bug: AQ_PLANT=NAME build/unit, in a build with
 * PLANTS=-DAQ_PLANTS. They must fail. */
#include "core/plant.h"

#ifdef AQ_PLANTS
#include <stdlib.h>

__attribute__((constructor)) static void plant_from_environment(void)
{
	plant_active = getenv("AQ_PLANT");
}
#else
typedef int plant_none; /* ISO C wants a declaration */
#endif
