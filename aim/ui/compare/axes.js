(axis, values) => {
  // what was typed for a setting comes back when that is chosen again
  const all = (window.aim.axes ??= {});
  const mine = (all.SIDE ??= { axis: FIRST, typed: {} });
  mine.typed[mine.axis] = values;
  mine.axis = axis;
  return mine.typed[axis] ?? EXAMPLES[axis] ?? values;
}
