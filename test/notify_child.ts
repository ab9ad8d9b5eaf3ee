/** A service in small, for service_manager.test.ts: its work goes on, or hangs after a while, while its timers fire. */
import { createLogger } from '../scripts/lib/log.ts';
import { untilStopped } from '../scripts/lib/service.ts';
import { tellReady } from '../scripts/lib/service_manager.ts';
import { Vital } from '../scripts/lib/vital_signs.ts';

const [hangsAfter] = process.argv.slice(2).map(Number) as [number];
const log = createLogger('notify_child');
let work = 0;
const timer = setInterval(() => {
  if (work < hangsAfter) work += 1;
}, 20);
tellReady(log, [new Vital('work', 400, () => work)]);
const stopped = untilStopped(log);
// Whoever reads this may stop it.
log.info({ event: 'started' });
await stopped;
clearInterval(timer);
