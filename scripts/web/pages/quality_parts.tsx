/** What the parts of the quality page share: words for verdicts and severities, shares that never look better than they are, and things to do. */
import type { ComponentChildren } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import type { Data } from '../ui/data.ts';
import { fixed, UNKNOWN } from '../ui/format.ts';
import { Badge, Problem, type Tone } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';

export const SEVERITIES = ['critical', 'high', 'medium', 'low', 'hint'] as const;
export type Severity = (typeof SEVERITIES)[number];
export const DEPTHS = ['quick', 'full', 'deep'] as const;

const SEVERITY_TEXT = texts({
  critical: ['critical', '严重'],
  high: ['high', '高'],
  medium: ['medium', '中'],
  low: ['low', '低'],
  hint: ['hint', '提示'],
});
const VERDICT_TEXT = texts({
  healthy: ['healthy', '健康'],
  degraded: ['degraded', '降级'],
  unhealthy: ['unhealthy', '异常'],
  unchecked: ['could not be checked', '未能检查'],
  'not applicable': ['not applicable', '不适用'],
});
const DEPTH_TEXT = texts({
  quick: ['quick (1 h)', '快速（1 小时）'],
  full: ['full (24 h)', '完整（24 小时）'],
  deep: ['deep (14 d)', '深度（14 天）'],
});
const TEXT = texts({
  sure: ['Really?', '确定？'],
  no: ['No', '取消'],
  token: ['Enter the API token first', '请先填写 API 令牌'],
});

export type Verdict = keyof typeof VERDICT_TEXT;
const VERDICT_TONES: Record<Verdict, Tone> = {
  ...{ healthy: 'good', degraded: 'warn', unhealthy: 'bad', unchecked: 'bad', 'not applicable': 'plain' },
};
export const SEVERITY_TONES: Record<Severity, Tone> = {
  ...{ critical: 'bad', high: 'bad', medium: 'warn', low: 'warn', hint: 'plain' },
};

export const severityWord = (severity: Severity) => SEVERITY_TEXT[severity];
export const depthWord = (depth: (typeof DEPTHS)[number]) => DEPTH_TEXT[depth];

export function VerdictBadge({ verdict }: { verdict: Verdict }) {
  return <Badge tone={VERDICT_TONES[verdict]}>{VERDICT_TEXT[verdict]}</Badge>;
}

export function verdictTone(verdict: Verdict): Tone {
  return VERDICT_TONES[verdict];
}

export function SeverityBadge({ severity }: { severity: Severity }) {
  return <Badge tone={SEVERITY_TONES[severity]}>{SEVERITY_TEXT[severity]}</Badge>;
}

/** Percent of rows that are there. Never rounded up: 99.9996 is not 100. */
export function completenessText(percent: number | null | undefined): string {
  if (percent === null || percent === undefined) return UNKNOWN;
  return percent === 100 ? '100 %' : `${fixed(Math.floor(percent * 1000) / 1000, 3)} %`;
}

/** Asks again at once when the turn is another one: somebody has done something that changes the answer. */
export function useTurn({ again }: Pick<Data<unknown>, 'again'>, turn: number): void {
  useEffect(() => {
    if (turn > 0) again();
  }, [turn]);
}

export interface Action {
  isBusy: boolean;
  error: string | null;
  /** What was done last, in words. */
  done: ComponentChildren;
  /** Does something; while it is under way nothing else is begun. @returns whether it went well */
  run(work: () => Promise<ComponentChildren>): Promise<boolean>;
}

/** Something that a reader has done, with how it ended. */
export function useAction(): Action {
  const [state, setState] = useState<Omit<Action, 'run'>>({ isBusy: false, error: null, done: null });
  return {
    ...state,
    async run(work) {
      setState({ isBusy: true, error: null, done: null });
      try {
        const done = await work();
        setState({ isBusy: false, error: null, done });
        return true;
      } catch (error) {
        setState({ isBusy: false, error: (error as Error).message, done: null });
        return false;
      }
    },
  };
}

/** How an action ended, told also to who does not see it. */
export function Outcome({ action }: { action: Action }) {
  return (
    <>
      {action.error === null ? null : <Problem error={action.error} />}
      <div role="status">{action.done === null ? null : <p class="note done">{action.done}</p>}</div>
    </>
  );
}

interface ButtonProps {
  children: ComponentChildren;
  token: string;
  disabled?: boolean;
  onClick(): void;
}

/** What changes something: it needs the token. */
export function WriteButton({ children, token, disabled = false, onClick }: ButtonProps) {
  return (
    <button
      type="button"
      class="button"
      disabled={disabled || token === ''}
      title={token === '' ? TEXT.token : undefined}
      onClick={onClick}
    >
      {children}
    </button>
  );
}

/** The same in two steps, for what is not to be done by a slip. */
export function TwoSteps({ children, token, disabled = false, onClick }: ButtonProps) {
  const [isAsked, setAsked] = useState(false);
  if (!isAsked || disabled)
    return (
      <WriteButton token={token} disabled={disabled} onClick={() => setAsked(true)}>
        {children}
      </WriteButton>
    );
  return (
    <span class="two-steps">
      <button
        type="button"
        class="button danger"
        onClick={() => {
          setAsked(false);
          onClick();
        }}
      >
        {TEXT.sure} {children}
      </button>
      <button type="button" class="button" onClick={() => setAsked(false)}>
        {TEXT.no}
      </button>
    </span>
  );
}
