/**
 * Preloaded into a child (`node --import`): its wall clock is off by the milliseconds that stand in the file MARKETPRISM_CLOCK_FILE, as on a
 * machine whose clock was set. Time that only goes forward (performance.now, timers) is not touched, as there.
 */
import { readFileSync } from 'node:fs';

const LOOK_MS = 100;
const Machine = Date;
let offset = 0;

function look() {
  try {
    offset = Number(readFileSync(process.env.MARKETPRISM_CLOCK_FILE, 'utf8'));
  } catch (error) {
    // No file: the clock was never set.
    if (error.code !== 'ENOENT') throw error;
  }
}

globalThis.Date = class extends Machine {
  constructor(...args) {
    if (args.length === 0) super(Machine.now() + offset);
    else super(...args);
  }

  static now() {
    return Machine.now() + offset;
  }
};

look();
setInterval(look, LOOK_MS).unref();
