/** `manage.ts units [--write]` (npm run units): the files of `systemd/` as the table of services makes them. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Command, onlyFlags } from '../manage/command.ts';
import { unitFiles } from './units.ts';

const HELP = {
  name: 'units',
  takes: '[--write]',
  what: 'prints the systemd units; --write: into systemd/ of this checkout',
};

export const unitsCommand: Command = {
  ...HELP,
  async run(argv, { out }) {
    const { write } = onlyFlags(HELP, { write: { type: 'boolean', default: false } }, argv);
    for (const [name, text] of unitFiles()) {
      if (write) writeFileSync(join(import.meta.dirname, '..', '..', '..', 'systemd', name), text);
      else out.write(`# ${name}\n${text}\n`);
    }
    return 0;
  },
};
