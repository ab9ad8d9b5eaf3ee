/** The desk's API: what its scripts have written, corrections in place, times as in the records, null where nothing is known. */
import { ESCAPE_ROUTES } from './escape_routes.ts';
import { MONITORING_ROUTES } from './monitoring_routes.ts';
import type { Route } from './route.ts';
import { SAR_ROUTES } from './sar_routes.ts';
import { SERIES_ROUTES } from './series_routes.ts';
import { SIGNAL_ROUTES } from './signal_routes.ts';

export const DESK_ROUTES: Route[] = [
  ...ESCAPE_ROUTES,
  ...SAR_ROUTES,
  ...SERIES_ROUTES,
  ...SIGNAL_ROUTES,
  ...MONITORING_ROUTES,
];
