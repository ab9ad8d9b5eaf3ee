/** What the kinds and events of the harvest are called, and what they mean. */
import { texts } from '../ui/settings.ts';

/** Of an event: its name, what it says, and what its strength is. */
const NAMES = texts({
  bull_div: ['Bullish divergence', '看涨背离'],
  bear_div: ['Bearish divergence', '看跌背离'],
  hidden_bull: ['Hidden bullish divergence', '隐藏看涨背离'],
  hidden_bear: ['Hidden bearish divergence', '隐藏看跌背离'],
  ofi_cvd_conflict: ['Flow against volume', '订单流与成交量冲突'],
  ofi_cvd_divergence: ['Flow strongly against volume', '订单流与成交量强烈背离'],
  anomaly: ['Unusual flow', '异常订单流'],
  price_anomaly: ['Price jump', '价格跳变'],
  gap: ['Gap in the data', '数据缺口'],
});
const MEANINGS = texts({
  bull_div: [
    'A lower low of the price, a higher low of the flow: selling loses its force. Strength 0 to 100.',
    '价格创新低而资金流低点抬高：卖压减弱。强度 0–100。',
  ],
  bear_div: [
    'A higher high of the price, a lower high of the flow: buying loses its force. Strength 0 to 100.',
    '价格创新高而资金流高点降低：买压减弱。强度 0–100。',
  ],
  hidden_bull: [
    'A higher low of the price, a lower low of the flow: the rise may go on. Strength 0 to 100.',
    '价格低点抬高而资金流低点降低：涨势可能延续。强度 0–100。',
  ],
  hidden_bear: [
    'A lower high of the price, a higher high of the flow: the fall may go on. Strength 0 to 100.',
    '价格高点降低而资金流高点抬高：跌势可能延续。强度 0–100。',
  ],
  ofi_cvd_conflict: [
    'The book’s flow (|z| ≥ 2) and the trades’ volume (|z| ≥ 1) point opposite ways; the direction is the book’s. Strength always 60.',
    '盘口订单流（|z| ≥ 2）与成交量差（|z| ≥ 1）方向相反；方向取盘口。强度恒为 60。',
  ],
  ofi_cvd_divergence: [
    'Both beyond |z| 2.5, and opposite; the direction is the book’s. Strength: the mean of both |z|.',
    '两者 |z| 均超过 2.5 且方向相反；方向取盘口。强度为两者 |z| 的均值。',
  ],
  anomaly: [
    'Flow beyond |z| 3, or volume beyond |z| 2.5. Strength: the larger |z|.',
    '订单流 |z| 超过 3，或成交量差 |z| 超过 2.5。强度为较大的 |z|。',
  ],
  price_anomaly: [
    'More than 5 % from one trade to the next. Strength: the change in percent.',
    '相邻两笔成交价格变动超过 5 %。强度为变动百分比。',
  ],
  gap: [
    'Something is known to be missing or late here: figures around it stand on less. The cause stands beside it.',
    '已知此处数据缺失或迟到，附近的数值依据不完整。原因见同一行。',
  ],
});
const TRIGGERS = texts({
  ofi: ['book flow', '盘口订单流'],
  cvd: ['trade volume', '成交量差'],
  both: ['both', '两者'],
  price: ['price', '价格'],
  silence: ['silence: nothing came for a minute', '静默：一分钟内无数据'],
  missing_trades: ['trades are missing', '成交缺失'],
  late_trade: ['a trade came too late for its second', '成交迟到，未能计入所属秒'],
});
const DIRECTIONS = texts({ bullish: ['▲ up', '▲ 看涨'], bearish: ['▼ down', '▼ 看跌'] });
const KINDS = texts({
  features: ['Seconds (features)', '逐秒特征（features）'],
  ofi: ['Order flow (ofi)', '订单流（ofi）'],
  cvd: ['Volume delta (cvd)', '成交量差（cvd）'],
  fusion: ['Fusion score (fusion)', '融合评分（fusion）'],
  events: ['Events (events)', '事件（events）'],
});
const LABELS = texts({
  Active: ['active', '活跃'],
  Quiet: ['quiet', '平静'],
  High: ['high volatility', '高波动'],
  Low: ['low volatility', '低波动'],
  buy: ['buy', '买入'],
  strong_buy: ['strong buy', '强烈买入'],
  sell: ['sell', '卖出'],
  strong_sell: ['strong sell', '强烈卖出'],
  neutral: ['neutral', '中性'],
  Tokyo: ['Tokyo', '东京时段'],
  London: ['London', '伦敦时段'],
  NY: ['New York', '纽约时段'],
  spot: ['spot', '现货'],
  perpetual: ['perpetual', '永续'],
  futures: ['futures', '期货'],
  options: ['options', '期权'],
});

/** A word of a table, or what it stands for where the table has none: what a newer harvester writes is shown as it is. */
function wordIn(table: Readonly<Record<string, string>>, name: string): string {
  return table[name] ?? name;
}

export const eventName = (type: string) => wordIn(NAMES, type);
export const eventMeaning = (type: string) => wordIn(MEANINGS, type);
export const triggerName = (trigger: string) => wordIn(TRIGGERS, trigger);
export const directionName = (direction: string) => wordIn(DIRECTIONS, direction);
export const kindName = (kind: string) => wordIn(KINDS, kind);
export const labelName = (label: string) => wordIn(LABELS, label);
