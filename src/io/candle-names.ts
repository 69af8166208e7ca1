/**
 * What candle files call their columns. A table of usual names and the rule for comparing them; knows nothing of values, files or models.
 */

/** Columns of a candle in the order of models and answers. */
export const candleNames = ["open", "high", "low", "close", "volume", "amount"] as const;
export type CandleName = (typeof candleNames)[number];

/** Usual names of each column, in the form that `plain` gives. */
const spellings: Readonly<Record<CandleName, readonly string[]>> = {
  open: ["open", "o", "openprice", "priceopen", "开盘", "开盘价"],
  high: ["high", "h", "highprice", "pricehigh", "max", "最高", "最高价"],
  low: ["low", "l", "lowprice", "pricelow", "min", "最低", "最低价"],
  close: ["close", "c", "closeprice", "priceclose", "last", "closelast", "收盘", "收盘价"],
  volume: ["volume", "vol", "v", "basevolume", "volumefrom", "tickvol", "tickvolume", "tickqty", "volumemillions", "成交量"],
  amount: ["amount", "amt", "turnover", "value", "quotevolume", "quoteassetvolume", "volumeto", "dollarvolume", "成交额"],
};

/** Units that a volume is counted in when it means money: "Volume USD" is an amount, "Volume BTC" a volume. */
const money = /^volume(usdt?|usdc|busd|eur|gbp|jpy|krw|cny|chf)$/;
const units = /^volume[a-z]{2,5}$/;

/** Letters and digits only, in lower case: "<OPEN>", "Open Price" and "open_price" are one name each. */
const plain = (name: string): string => name.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "");

/** The candle column that a name means, if any. Sides of a quote ("bidopen", "Open (Ask)") count as the price itself. */
export function candleColumn(name: string): CandleName | undefined {
  const own = plain(name);
  const bare = own.replace(/^(bid|ask|mid)|(bid|ask|mid)$/, "");
  const named = candleNames.find((column) => spellings[column].includes(own) || spellings[column].includes(bare));
  if (named) return named;
  return money.test(own) ? "amount" : units.test(own) ? "volume" : undefined;
}

/** Places in `header` of the candle columns that are there, in a candle's order, the first of each; undefined without all four prices. */
export function candleTargets(header: readonly string[]): number[] | undefined {
  const meant = header.map(candleColumn);
  const places = candleNames.map((column) => meant.indexOf(column));
  return places.slice(0, 4).every((place) => place >= 0) ? places.filter((place) => place >= 0) : undefined;
}
