/** What systemd says of our units. */

import { TARGET } from '../../systemd/units.ts';
import type { Unit } from '../systemd.ts';
import { type Finding, finding, ok, type Probe } from './finding.ts';

export const units: Probe = {
  area: 'systemd',
  async look({ set, isBooted }) {
    if (!isBooted) return [ok(TARGET, 'systemd does not run this machine')];
    if (set.units.length === 0) return [finding('hint', TARGET, 'is not installed', 'sudo npm run install:systemd')];
    const faults = set.units.flatMap(judgeUnit);
    return faults.length > 0 ? faults : [ok(TARGET, `${set.units.length} units, none failed`)];
  },
};

export function judgeUnit({ id, active, result, restarts, atBoot, isOutdated }: Unit): Finding[] {
  const findings: Finding[] = [];
  if (active === 'failed') {
    // After its start limit a unit is left as it is until somebody says otherwise.
    const remedy = `sudo systemctl reset-failed ${id} && sudo systemctl start ${id}  # after: journalctl -u ${id} -n 50`;
    const limit = result === 'start-limit-hit' ? ': it was started too often, and is started no more' : '';
    findings.push(finding('error', id, `failed (${result})${limit}`, remedy));
  } else if (restarts !== null && restarts > 0)
    findings.push(finding('hint', id, `was started again ${restarts} times`, `journalctl -u ${id} -p warning`));
  if (isOutdated)
    findings.push(finding('warning', id, 'its file has changed since systemd read it', 'sudo systemctl daemon-reload'));
  if (id === TARGET && atBoot === 'disabled')
    findings.push(finding('warning', id, 'is not started at boot', `sudo systemctl enable ${TARGET}`));
  return findings;
}
