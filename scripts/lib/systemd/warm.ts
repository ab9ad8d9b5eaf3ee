/**
 * Loads every script once, so that the loader keeps what it has compiled (in TMPDIR). Run by the installation as the services' user, in the folder of the
 * installed code: node --import tsx scripts/lib/systemd/warm.ts
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';

const scripts = join(import.meta.dirname, '..', '..');
// None of them is the entry point here, so that none does anything. What is compiled is written in the background: this ends by itself, when that is done.
for (const name of readdirSync(scripts).filter((each) => each.endsWith('.ts'))) await import(join(scripts, name));
