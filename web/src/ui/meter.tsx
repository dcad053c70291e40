export interface MeterProps {
  /** From 0 to 1; null while it is not known. */
  value: number | null;
  label: string;
  kind?: "plain" | "busy";
}

export function Meter({ value, label, kind = "plain" }: MeterProps) {
  const share = value === null ? null : Math.min(1, Math.max(0, value));
  return (
    <div
      class={`meter ${kind} ${share === null ? "unknown" : ""}`}
      role="progressbar"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={share === null ? undefined : Math.round(share * 100)}
    >
      <div style={share === null ? {} : { width: `${share * 100}%` }} />
    </div>
  );
}
