// Points of the store as series that a plot draws: one x axis without holes, one line for each group.

const SECONDS = { hour: 3600, day: 86400 };

/** Return the length of a bucket in seconds. */
export const secondsOf = (grain) => SECONDS[grain];

/** Return every bucket from the first point to the last, or from `begin` on, in seconds since the epoch. */
export function bucketsOf(points, grain, begin = null) {
  const length = SECONDS[grain];
  const times = points.map((point) => Math.round(point.time_ns / 1e9));
  if (!times.length) return [];
  const last = times.reduce((a, b) => Math.max(a, b));
  const first = times.reduce((a, b) => Math.min(a, b));
  let from = begin === null ? first : Math.min(first, Math.floor(begin / length) * length);
  if (last === from) from -= length; // a single bucket is a point, not a line
  const buckets = [];
  for (let time = from; time <= last; time += length) buckets.push(time);
  return buckets;
}

/** Return `values` of a group's points by bucket; `absent` where there is none. */
export function valuesOf(points, buckets, read, absent) {
  const places = new Map(buckets.map((time, index) => [time, index]));
  const values = buckets.map(() => absent);
  for (const { time_ns, statistic } of points) {
    const place = places.get(Math.round(time_ns / 1e9));
    if (place !== undefined) values[place] = read(statistic) ?? absent;
  }
  return values;
}

/** Return the points of each group, those with the largest sum of `read` first, at most so many. */
export function groupsOf(points, by, read, most) {
  const groups = new Map();
  for (const point of points) {
    const key = point.statistic[by] ?? null;
    if (!groups.has(key)) groups.set(key, { key, points: [], sum: 0 });
    const group = groups.get(key);
    group.points.push(point);
    group.sum += read(point.statistic) ?? 0;
  }
  return [...groups.values()]
    .filter((group) => group.sum > 0)
    .sort((a, b) => b.sum - a.sum)
    .slice(0, most);
}
