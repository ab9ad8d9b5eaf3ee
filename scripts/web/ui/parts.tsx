/** The parts that pages are made of. */
import type { ComponentChildren, TargetedEvent } from 'preact';
import { useState } from 'preact/hooks';
import type { Data } from './data.ts';
import { bothTimes, span, type TimeDetail, time, UNKNOWN } from './format.ts';
import { texts } from './settings.ts';

const TEXT = texts({
  loading: ['Loading …', '加载中……'],
  empty: ['Nothing here yet', '暂无数据'],
  old: ['These figures are', '以下数据截至'],
  ago: ['old', '前'],
  newer: ['Newer', '更新'],
  older: ['Older', '更早'],
  of: ['of', '/'],
  token: ['API token', 'API 令牌'],
  tokenHint: [
    'MARKETPRISM_API_TOKEN of the service; kept in this tab only',
    '服务的 MARKETPRISM_API_TOKEN；仅保存在此标签页',
  ],
});

interface CardProps {
  title: string;
  /** Beside the title: choices of what is shown. */
  actions?: ComponentChildren;
  /** One line under the title. */
  note?: ComponentChildren;
  /** Takes the whole width of the page. */
  wide?: boolean;
  children: ComponentChildren;
}

export function Card({ title, actions, note, wide = false, children }: CardProps) {
  return (
    <section class={wide ? 'card wide' : 'card'} aria-label={title}>
      <header>
        <h2>{title}</h2>
        {actions}
      </header>
      {note === undefined ? null : <p class="note">{note}</p>}
      {children}
    </section>
  );
}

/** Figures in a row, each with its name. */
export function Figures({ children }: { children: ComponentChildren }) {
  return <dl class="figures">{children}</dl>;
}

interface FigureProps {
  label: string;
  /** As it is shown. */
  value: ComponentChildren;
  /** A name that stays the same in each language; tests and scripts find the figure by it. */
  name?: string;
  tone?: Tone | undefined;
}

export function Figure({ label, value, name, tone }: FigureProps) {
  return (
    <div>
      <dt>{label}</dt>
      <dd data-figure={name} class={tone}>
        {value}
      </dd>
    </div>
  );
}

/** good: as it should be; warn: look at it; bad: act; up, down: of prices. */
export type Tone = 'good' | 'warn' | 'bad' | 'up' | 'down' | 'plain';

export function Badge({ tone, children }: { tone: Tone; children: ComponentChildren }) {
  return <span class={`badge ${tone}`}>{children}</span>;
}

export function Problem({ error }: { error: string }) {
  return (
    <p class="problem" role="alert">
      {error}
    </p>
  );
}

export function Empty({ children }: { children?: ComponentChildren }) {
  return <p class="empty">{children ?? TEXT.empty}</p>;
}

/** What was asked for, once it is there; when a newer answer failed, the old one with its age and the reason. */
export function Loaded<T>({ data, children }: { data: Data<T>; children: (value: T) => ComponentChildren }) {
  const { value, error, at } = data;
  return (
    <>
      {error === null ? null : <Problem error={error} />}
      {error === null || value === null || at === null ? null : (
        <p class="note">
          {TEXT.old} {span(Date.now() - at)} {TEXT.ago}
        </p>
      )}
      {value !== null ? children(value) : error === null ? <p class="loading">{TEXT.loading}</p> : null}
    </>
  );
}

/** A moment in the chosen zone; who points at it sees it in both. */
export function Time({ ms, detail = 'second' }: { ms: number | null | undefined; detail?: TimeDetail }) {
  if (ms === null || ms === undefined) return <>{UNKNOWN}</>;
  return (
    <time dateTime={new Date(ms).toISOString()} title={bothTimes(ms)}>
      {time(ms, detail)}
    </time>
  );
}

interface ChoiceProps<T extends string> {
  /** What is chosen, for who does not see it. */
  label: string;
  choices: readonly T[];
  chosen: T;
  onChoose(chosen: T): void;
  /** As it is shown; absent: as it is. */
  name?(choice: T): string;
}

/** One of a few. */
export function Choice<T extends string>({ label, choices, chosen, onChoose, name = (each) => each }: ChoiceProps<T>) {
  return (
    <fieldset class="choice">
      <legend>{label}</legend>
      {choices.map((each) => (
        <button type="button" key={each} aria-pressed={each === chosen} onClick={() => onChoose(each)}>
          {name(each)}
        </button>
      ))}
    </fieldset>
  );
}

/** One of many. */
export function Select<T extends string>({ label, choices, chosen, onChoose, name = (each) => each }: ChoiceProps<T>) {
  return (
    <label class="select">
      <span>{label}</span>
      <select value={chosen} onChange={(event) => onChoose(event.currentTarget.value as T)}>
        {choices.map((each) => (
          <option key={each} value={each}>
            {name(each)}
          </option>
        ))}
      </select>
    </label>
  );
}

export interface Column<R> {
  title: string;
  cell(row: R): ComponentChildren;
  /** Right-aligned. */
  isNumber?: boolean;
  tone?(row: R): Tone | undefined;
}

interface TableProps<R> {
  label: string;
  columns: readonly Column<R>[];
  rows: readonly R[];
  /** What a row stays the same by. */
  keyOf(row: R, index: number): string;
  empty?: ComponentChildren;
}

/** Rows; wider than the page it is scrolled by itself. */
export function Table<R>({ label, columns, rows, keyOf, empty }: TableProps<R>) {
  if (rows.length === 0) return <Empty>{empty}</Empty>;
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: who has no mouse scrolls it by its focus
    <section class="table" tabIndex={0} aria-label={label}>
      <table>
        <thead>
          <tr>
            {columns.map(({ title, isNumber }) => (
              <th key={title} scope="col" class={isNumber ? 'number' : undefined}>
                {title}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row, index) => (
            <tr key={keyOf(row, index)}>
              {columns.map(({ title, cell, isNumber, tone }) => (
                <td key={title} class={[isNumber ? 'number' : '', tone?.(row) ?? ''].join(' ').trim() || undefined}>
                  {cell(row)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

interface PagerProps {
  /** Of all rows. */
  total: number;
  /** Rows a page. */
  size: number;
  /** Rows before the page. */
  offset: number;
  onTurn(offset: number): void;
}

/** Turns the pages of a list whose newest rows come first. */
export function Pager({ total, size, offset, onTurn }: PagerProps) {
  // Who is on a later page of a list that became short goes back by it.
  if (total <= size && offset === 0) return null;
  return (
    <nav class="pager" aria-label={`${TEXT.newer} / ${TEXT.older}`}>
      <button type="button" disabled={offset === 0} onClick={() => onTurn(Math.max(offset - size, 0))}>
        ← {TEXT.newer}
      </button>
      <span>
        {Math.min(offset + 1, total)}–{Math.min(offset + size, total)} {TEXT.of} {total}
      </span>
      <button type="button" disabled={offset + size >= total} onClick={() => onTurn(offset + size)}>
        {TEXT.older} →
      </button>
    </nav>
  );
}

const TOKEN_KEY = 'marketprism-token';

/** The token for what changes something: kept by the tab, and gone with it. */
export function useToken(): [string, (token: string) => void] {
  const [token, setToken] = useState(sessionStorage.getItem(TOKEN_KEY) ?? '');
  return [
    token,
    (next) => {
      sessionStorage.setItem(TOKEN_KEY, next);
      setToken(next);
    },
  ];
}

export function TokenField({ token, onChange }: { token: string; onChange(token: string): void }) {
  const read = (event: TargetedEvent<HTMLInputElement>) => onChange(event.currentTarget.value.trim());
  return (
    <label class="select" title={TEXT.tokenHint}>
      <span>{TEXT.token}</span>
      <input type="password" autoComplete="off" value={token} placeholder={TEXT.tokenHint} onInput={read} />
    </label>
  );
}
