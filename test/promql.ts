/**
 * What a PromQL expression names: its metrics, and the labels that each is matched, grouped or joined by. It knows the part of the
 * language that our dashboard and rules use, and refuses the rest, so that nothing passes unread.
 */

/** `operator` is one of = != =~ !~. */
export interface Matcher {
  label: string;
  operator: string;
  value: string;
}

export interface NamedMetric {
  metric: string;
  matchers: Matcher[];
  /** Labels of `by (…)` around it. */
  grouping: string[];
}

const AGGREGATORS = new Set(['sum', 'avg', 'min', 'max', 'count', 'topk', 'bottomk', 'quantile']);
const FUNCTIONS = new Set(['abs', 'changes', 'clamp_min', 'delta', 'deriv', 'histogram_quantile', 'increase']);
for (const each of ['irate', 'max_over_time', 'min_over_time', 'rate', 'time', 'vector']) FUNCTIONS.add(each);
const BETWEEN = new Set(['and', 'or', 'unless', 'bool']);

const TOKEN =
  /\s+|(?<range>\[[^\]]*\])|(?<text>"(?:\\.|[^"\\])*")|(?<number>\d+(?:\.\d+)?(?:[smhdwy]\b)?)|(?<name>[A-Za-z_:][\w:]*)|(?<sign>=~|!~|==|!=|>=|<=|[-+*/%^<>=(){},])/y;

interface Token {
  kind: string;
  text: string;
}

function tokens(expression: string): Token[] {
  const out: Token[] = [];
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < expression.length) {
    const at = TOKEN.lastIndex;
    const found = TOKEN.exec(expression);
    if (found === null) throw new Error(`not understood at ${at}: ${expression.slice(at)}`);
    const [kind, text] = Object.entries(found.groups!).find(([, value]) => value !== undefined) ?? [];
    if (kind !== undefined && kind !== 'range') out.push({ kind, text: text! });
  }
  return out;
}

/** @throws Error for what it does not understand */
export function namedIn(expression: string): NamedMetric[] {
  const all = tokens(expression);
  const out: NamedMetric[] = [];
  let at = 0;
  const is = (text: string) => all[at]?.kind !== 'text' && all[at]?.text === text;
  const take = (text: string) => {
    if (!is(text)) throw new Error(`${text} expected, not ${all[at]?.text ?? 'the end'}: ${expression}`);
    at += 1;
  };
  const takeKind = (kind: string) => {
    const token = all[at];
    if (token?.kind !== kind) throw new Error(`a ${kind} expected, not ${token?.text ?? 'the end'}: ${expression}`);
    at += 1;
    return token.text;
  };
  /** `(a, b)`, a list that may be empty. */
  const list = <T>(open: string, close: string, item: () => T): T[] => {
    const items: T[] = [];
    take(open);
    while (!is(close)) {
      items.push(item());
      if (!is(close)) take(',');
    }
    take(close);
    return items;
  };
  const matcher = (): Matcher => {
    const label = takeKind('name');
    const operator = takeKind('sign');
    return { label, operator, value: JSON.parse(takeKind('text')) as string };
  };
  const grouped = () => {
    if (!is('by')) return [];
    at += 1;
    return list('(', ')', () => takeKind('name'));
  };
  const named = (name: string, grouping: string[]): void => {
    if (BETWEEN.has(name)) return;
    if (AGGREGATORS.has(name)) {
      const first = out.length;
      const before = grouped();
      inParentheses([...grouping, ...before]);
      const after = grouped();
      for (const each of out.slice(first)) each.grouping.push(...after);
    } else if (is('(')) {
      if (!FUNCTIONS.has(name)) throw new Error(`${name} is no function that is known here: ${expression}`);
      inParentheses(grouping);
    } else out.push({ metric: name, matchers: is('{') ? list('{', '}', matcher) : [], grouping: [...grouping] });
  };
  const inParentheses = (grouping: string[]): void => {
    take('(');
    while (!is(')')) step(grouping);
    take(')');
  };
  const step = (grouping: string[]): void => {
    const token = all[at];
    if (token === undefined) throw new Error(`it ends too early: ${expression}`);
    if (is('(')) {
      inParentheses(grouping);
      return;
    }
    if (token.kind === 'text' || '{}=)'.includes(token.text)) {
      throw new Error(`${token.text} is out of place: ${expression}`);
    }
    at += 1;
    if (token.kind === 'name') named(token.text, grouping);
  };
  while (at < all.length) step([]);
  return out;
}
