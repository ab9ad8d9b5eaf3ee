/** Major events in the words of their readers, English and Chinese; times are Beijing's. */
import { beijingText } from './beijing.ts';
import type { Colour, EventName, Values } from './major_events.ts';

export interface EventTexts {
  name: string;
  name_zh: string;
  /** What the desk does. The original names one for E1 only; the others ask for a look, and for no order. */
  action: string;
  text: string;
  text_zh: string;
}

const COLOURS_ZH: Record<Colour, string> = { green: '绿', red: '红' };
/** What a new colour says of the shorts. */
const COLOUR_MEANS: Record<Colour, { en: string; zh: string }> = {
  green: { en: 'in loss', zh: '亏损' },
  red: { en: 'with a profit of 120 % or more', zh: '盈利达 120%' },
};

const TEXTS: Record<EventName, (values: Values) => EventTexts> = {
  E1(values) {
    const { signal_2h_count: now, top_count, total_change } = values;
    const at = clock(values.top_minute);
    return {
      ...{ name: 'strong top', name_zh: '强势见顶', action: 'open short' },
      text: `Strong top: ${top_count} escape signals in 2 h (last at ${at}), now ${now}, while the coins are up ${total_change} % in sum: open short.`,
      text_zh: `强势见顶：2 小时逃顶信号曾达 ${top_count}（最后于 ${at}），现为 ${now}，币种涨跌幅总和 +${total_change}%：开空。`,
    };
  },
  E2(values) {
    const { signal_2h_count: now, top_count } = values;
    const at = clock(values.top_minute);
    return {
      ...{ name: 'weak top', name_zh: '弱势见顶', action: 'watch for a short' },
      text: `Weak top: ${top_count} escape signals in 2 h (at ${at}), now ${now}: watch for a short.`,
      text_zh: `弱势见顶：2 小时逃顶信号曾达 ${top_count}（${at}），现为 ${now}：关注做空机会。`,
    };
  },
  E3(values) {
    const [en, zh] = afterLiquidations(values);
    return {
      ...{ name: 'liquidations, strong rebound', name_zh: '爆仓后强势', action: 'watch for a long' },
      text: `Strong after liquidations: ${en}: watch for a long.`,
      text_zh: `爆仓后强势：${zh}：关注做多机会。`,
    };
  },
  E4(values) {
    const [en, zh] = afterLiquidations(values);
    return {
      ...{ name: 'liquidations, weak rebound', name_zh: '爆仓后弱势', action: 'stand aside' },
      text: `Weak after liquidations: ${en}: stand aside.`,
      text_zh: `爆仓后弱势：${zh}：观望。`,
    };
  },
  E5(values) {
    const [from, to] = [values.from, values.to] as [Colour, Colour];
    const shown = to === 'green' ? values.loss : values.gte_120;
    return {
      ...{ name: 'anchor reversal', name_zh: '锚定单反转', action: 'review the shorts' },
      text: `Anchor reversal, ${from} to ${to}: ${shown} shorts are ${COLOUR_MEANS[to].en}: review the shorts.`,
      text_zh: `锚定单反转，${COLOURS_ZH[from]}转${COLOURS_ZH[to]}：${shown} 个空单${COLOUR_MEANS[to].zh}：检查空单。`,
    };
  },
};

export function textsOf(event: EventName, values: Values): EventTexts {
  return TEXTS[event](values);
}

function afterLiquidations(values: Values): [en: string, zh: string] {
  const { trigger_price, price, liquidation_minutes } = values;
  const millions = (Number(values.liquidation_1h) / 1e6).toFixed(1);
  const [change, highest] = [signed(values.change_percent), signed(values.highest_percent)];
  const at = clock(values.trigger_minute);
  return [
    `${millions} M USD in 1 h at ${at}, then BTC ${trigger_price} to ${price} in ${liquidation_minutes} min (${change} %, at most ${highest} %)`,
    `${at} 时 1 小时爆仓 ${millions} 百万美元，随后 ${liquidation_minutes} 分钟 BTC ${trigger_price} → ${price}（${change}%，最高 ${highest}%）`,
  ];
}

function signed(value: number | string | undefined): string {
  return `${Number(value) > 0 ? '+' : ''}${value}`;
}

/** `MM-DD HH:MM` in Beijing. */
function clock(time: number | string | undefined): string {
  return beijingText(Number(time)).slice(5, 16);
}
