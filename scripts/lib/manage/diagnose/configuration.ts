/** What the services are told that is not the default. */

import { UsageError } from '../../cli.ts';
import { loadConfig, shownUrl } from '../../config.ts';
import { finding, ok, type Probe } from './finding.ts';
import { isSecret } from './secrets.ts';

const OURS = /^MARKETPRISM_/;
/** Ours, and read elsewhere than in the configuration. */
const ELSEWHERE = /^MARKETPRISM_(TEST_|PROOF|CRASH|EMBEDDED_|FAULTS_|DESK_DAYS|GAPS_|COLD_AWAY)/;

export const configuration: Probe = {
  area: 'configuration',
  async look({ set: { env, supervisor, config } }) {
    const { changed, idle } = settingsOf(env);
    const told = changed.map((name) => `${name}=${isSecret(name) ? '(set)' : shownUrl(env[name] ?? '')}`);
    return [
      ok(
        'environment',
        `valid; mode ${config.mode}, of ${supervisor === 'none' ? 'this shell' : `the services (${supervisor})`}`,
      ),
      ok('not default', told.join(', ') || 'nothing'),
      ...idle.map((name) => finding('hint', name, 'changes nothing: it is the default, or misspelt', null)),
    ];
  },
};

/** Variables that make the configuration another one, and those of ours that do not. Found by leaving each out. */
export function settingsOf(env: NodeJS.ProcessEnv): { changed: string[]; idle: string[] } {
  const whole = JSON.stringify(loadConfig(env));
  const changed = Object.keys(env)
    .filter((name) => env[name] !== '' && configWithout(env, name) !== whole)
    .sort();
  const idle = Object.keys(env).filter((name) => OURS.test(name) && !ELSEWHERE.test(name) && env[name] !== '');
  return { changed, idle: idle.filter((name) => !changed.includes(name)).sort() };
}

function configWithout(env: NodeJS.ProcessEnv, name: string): string | null {
  try {
    return JSON.stringify(loadConfig({ ...env, [name]: '' }));
  } catch (error) {
    // One of several that only come together.
    if (error instanceof UsageError) return null;
    throw error;
  }
}
