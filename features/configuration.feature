Feature: Settings are right as a whole, or nothing is changed
  An operator hears of every mistake at once, with its place, before anything starts. A reload applies or changes nothing.

  Scenario: Several mistakes are all reported, and nothing starts
    When the operator starts the proxy with this file:
      """
      listen = "8545"
      [health]
      intervall = "1s"
      fall = 0
      [calls]
      timeout = "30"
      attempt_timeout = "1m"
      [[el.primary]]
      name = "geth"
      http = "<node>"
      [[el.backup]]
      name = "geth"
      http = "ftp://example.org"
      headers = { Authorization = "Bearer ${STEADFAST_UNSET}" }
      """
    Then it ends at once with exit code 2
    And it has said all of this:
      | key                                  | words                                                |
      | listen                               | must be an IP address and a port                     |
      | health.intervall                     | interval                                             |
      | health.fall                          | must                                                 |
      | calls.timeout                        | must                                                 |
      | el.backup[0].name                    | is the name of `el.primary[0]` already               |
      | el.backup[0].http                    | must                                                 |
      | el.backup[0].headers.Authorization   | environment variable STEADFAST_UNSET is not set      |
    And no node has heard of it

  Scenario: One unknown key is enough
    When the operator starts the proxy with this file:
      """
      listen = "127.0.0.1:0"
      admin.listen = "127.0.0.1:0"
      [[el.primary]]
      http = "<node>"
      rank = 3
      """
    Then it ends at once with exit code 2
    And it has said all of this:
      | key                    | words              |
      | el.primary[0].rank     | is not a known key |
    And no node has heard of it

  Scenario: A reload with mistakes changes nothing
    Given a primary geth
    And the proxy runs
    And clients call without pause
    When the operator changes the settings and reloads:
      | calls.max_batch  | 0        |
      | health.intervall | "1s"     |
      | calls.hold       | "a week" |
    Then the reload is refused, and every mistake named:
      | calls.max_batch  |
      | health.intervall |
      | calls.hold       |
    And calls go to geth
    And every call was answered

  Scenario: A good reload applies, and drops no call
    Given a primary geth
    And the settings:
      | calls.max_batch | 3 |
    And the proxy runs
    When a client sends a batch of 5 calls
    Then the client gets error -32005 for the reason max_batch
    Given clients call without pause
    When the operator changes the settings and reloads:
      | calls.max_batch | 5 |
    Then the reload is applied
    When a client sends a batch of 5 calls
    Then the answer has 5 entries, each with its own id
    When 50 more calls have been made
    Then every call was answered

  Scenario: A reload to other nodes drops no call
    Given a primary geth
    And the proxy runs
    And clients call without pause
    When the operator replaces geth by besu in the file and reloads
    Then the reload is applied
    And calls go to besu
    When 50 more calls have been made
    Then every call was answered

  Scenario: Calls under way at a node that a reload takes away are answered
    Given a primary geth
    And the settings:
      | health.timeout | "5s" |
    And the proxy runs
    When geth answers 400 ms late
    And a call has reached geth, which owes the answer
    And the operator replaces geth by besu in the file and reloads
    Then the reload is applied
    And that call is answered by geth within 3000 ms
    And calls go to besu

  Scenario: Calls that are held while all nodes are down go to the node that a reload brings
    Given a primary geth
    And the proxy runs
    When geth goes down
    Then geth is found down
    When 3 calls come, one after the other
    And the operator replaces geth by besu in the file and reloads
    Then the reload is applied
    And every call that waited is answered

  Scenario Outline: What only a restart can change is refused, and nothing else of the file is applied either
    Given a primary geth
    And the settings:
      | calls.max_batch | 3 |
    And the proxy runs
    When the operator changes the settings and reloads:
      | <key>           | <value> |
      | calls.max_batch | 5       |
    Then the reload is refused, and every mistake named:
      | <named> |
    When a client sends a batch of 5 calls
    Then the client gets error -32005 for the reason max_batch

    Examples:
      | key          | value         | named        |
      | listen       | "127.0.0.1:1" | listen       |
      | admin.listen | "127.0.0.1:1" | admin.listen |
      | workers      | 7             | workers      |
      | log.filter   | "debug"       | log          |

  Scenario: A new grace time counts at the next shutdown, or the reload is refused
    Given a primary geth
    And the settings:
      | shutdown_grace  | "60s" |
      | health.interval | "30s" |
      | health.timeout  | "30s" |
    And the proxy runs as a process of its own
    When a client calls eth_gasPrice
    Then the client gets a result
    When the operator changes the settings and reloads:
      | shutdown_grace | "1s" |
    Then the reload is applied
    When geth hangs
    And a call has reached geth, which owes the answer
    And the operator sends SIGTERM
    Then the process ends with exit code 0 within 4000 ms of the signal

  Scenario: A cordon outlives a reload
    Given a primary geth
    And a backup provider
    And the proxy runs
    When the operator cordons geth
    Then calls go to provider
    When the operator changes the settings and reloads:
      | calls.max_batch | 5 |
    Then the reload is applied
    And calls stay with provider for 300 ms
    When the operator uncordons geth
    Then calls go to geth
