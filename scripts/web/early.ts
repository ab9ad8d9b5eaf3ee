/** Runs before the first paint, so that a page does not flash in the other theme. */
import { applySettings } from './ui/settings.ts';

applySettings();
