// A plain script, and the only one that runs before the first paint: the colours and the layout must not jump.
{
  const root = document.documentElement;
  root.classList.add("scripted");
  try {
    const theme = JSON.parse(localStorage.getItem("huginn.theme"));
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  } catch {
    // Storage is forbidden, or not as this page writes it: the system's colours it is.
  }
}
