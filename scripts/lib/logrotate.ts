/** `logrotate/marketprism` for other places than those that it names. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { UsageError } from './cli.ts';

/** What stands in the file, which is valid as it is. */
export const INSTALLED = {
  dataDir: '/var/lib/marketprism',
  logDir: '/var/log/marketprism',
  user: 'marketprism',
  group: 'marketprism',
} as const;
export type RotationPlaces = { [key in keyof typeof INSTALLED]: string };

/**
 * The configuration as text, with the directories and the owner of their files put in where others stand.
 * @throws UsageError for a directory that logrotate would take for a pattern, or for several
 */
export function logrotateConfig(places: Partial<RotationPlaces> = {}): string {
  const { dataDir, logDir, user, group } = { ...INSTALLED, ...places };
  for (const directory of [dataDir, logDir]) {
    if (!/^\/[\w./+@:-]*[\w+@:-]$/.test(directory))
      throw new UsageError(`logrotate takes absolute paths of letters, digits and ._+@:-, not "${directory}"`);
  }
  const text = readFileSync(join(import.meta.dirname, '..', '..', 'logrotate', 'marketprism'), 'utf8');
  return text
    .replaceAll(/^\/var\/lib\/marketprism\//gm, () => `${dataDir}/`)
    .replaceAll(/^\/var\/log\/marketprism\//gm, () => `${logDir}/`)
    .replaceAll(/^( +su) marketprism marketprism$/gm, (_, su: string) => `${su} ${user} ${group}`);
}
