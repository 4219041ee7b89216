Feature: The proxy goes down without dropping a call

  Scenario: Calls in flight finish after SIGTERM, and nothing new is taken
    Given a primary geth
    And the settings:
      | health.timeout | "5s" |
      | shutdown_grace | "6s" |
    And the proxy runs as a process of its own
    When geth answers 1500 ms late
    And a call has reached geth, which owes the answer
    And the operator sends SIGTERM
    Then it says that it is not ready
    And new connections are refused
    And that call is answered by geth within 4000 ms
    And the process ends with exit code 0 within 5000 ms of the signal

  Scenario: Calls that wait for a node are told that the proxy goes down, within the grace time
    Given a primary geth
    And the settings:
      | shutdown_grace | "1500ms" |
    And the proxy runs as a process of its own
    When a client calls eth_gasPrice
    Then the client gets a result
    When geth goes down
    Then geth is found down
    When 2 calls come, one after the other
    And the operator sends SIGTERM
    Then every call that waited gets error -32002 for the reason shutting_down
    And the process ends with exit code 0 within 4000 ms of the signal

  Scenario: A node that never answers does not hold the proxy up beyond its grace time
    Given a primary geth
    And the settings:
      | shutdown_grace  | "1s"  |
      | health.interval | "30s" |
      | health.timeout  | "30s" |
    And the proxy runs as a process of its own
    When a client calls eth_gasPrice
    Then the client gets a result
    When geth hangs
    And a call has reached geth, which owes the answer
    And the operator sends SIGTERM
    Then the process ends with exit code 0 within 4000 ms of the signal
